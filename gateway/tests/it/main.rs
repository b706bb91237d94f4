//! The gateway from outside: the binary, real files, real clients.

mod check;
mod init;
mod site;

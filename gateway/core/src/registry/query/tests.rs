//! Queries as an operator writes them, well and badly.

//! An MQTT client in its bare packets, over a plain connection: for tests that must know to the packet
//! what was sent, what was answered, and what is to be sent again.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
};

use crate::{
    served::PATIENCE,
    wire::{packet, text},
};

/// A connection after its CONNACK.
#[derive(Debug)]
pub(crate) struct Peer {
    socket: TcpStream,
    read: Vec<u8>,
    /// 4 or 5.
    version: u8,
}

/// What a CONNECT asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) version: u8,
    pub(crate) client_id: &'a str,
    /// Clean session or clean start.
    pub(crate) clean: bool,
    /// Of MQTT 5.
    pub(crate) expiry_secs: u32,
    /// Receive maximum, of MQTT 5.
    pub(crate) window: u16,
}

/// A PUBLISH in either direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Publish {
    pub(crate) dup: bool,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) topic: String,
    /// 0 at QoS 0.
    pub(crate) id: u16,
    pub(crate) payload: String,
}

/// What a gateway sends, as far as these tests want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Got {
    Publish(Publish),
    Ack(u16),
    Rec(u16),
    Rel(u16),
    Comp(u16),
    SubAck(u16),
    UnsubAck(u16),
    Pong,
    Disconnect,
}

impl Peer {
    /// Connects; whether the gateway had the session.
    pub(crate) fn connect(address: SocketAddr, asked: &Asked<'_>) -> io::Result<(Self, bool)> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut body = text("MQTT");
        body.extend([asked.version, u8::from(asked.clean) << 1, 0, 0]);
        if asked.version == 5 {
            body.extend([8, 0x11]);
            body.extend(asked.expiry_secs.to_be_bytes());
            body.push(0x21);
            body.extend(asked.window.to_be_bytes());
        }
        body.extend(text(asked.client_id));
        let mut peer = Self {
            socket,
            read: Vec::new(),
            version: asked.version,
        };
        peer.send(0x10, &body)?;
        let (first, body) = peer.packet()?;
        assert_eq!((first, body[1]), (0x20, 0), "a CONNACK that admits");
        Ok((peer, body[0] == 1))
    }

    pub(crate) fn publish(&mut self, publish: &Publish) -> io::Result<()> {
        let flags = u8::from(publish.dup) << 3 | publish.qos << 1 | u8::from(publish.retain);
        let mut body = text(&publish.topic);
        if publish.qos > 0 {
            body.extend(publish.id.to_be_bytes());
        }
        body.extend(self.no_properties());
        body.extend(publish.payload.as_bytes());
        self.send(0x30 | flags, &body)
    }

    pub(crate) fn ack(&mut self, id: u16) -> io::Result<()> {
        self.send(0x40, &id.to_be_bytes())
    }

    pub(crate) fn rec(&mut self, id: u16) -> io::Result<()> {
        self.send(0x50, &id.to_be_bytes())
    }

    pub(crate) fn rel(&mut self, id: u16) -> io::Result<()> {
        self.send(0x62, &id.to_be_bytes())
    }

    pub(crate) fn comp(&mut self, id: u16) -> io::Result<()> {
        self.send(0x70, &id.to_be_bytes())
    }

    /// `options` as the standard has them: the lowest two bits are the QoS.
    pub(crate) fn subscribe(&mut self, id: u16, filter: &str, options: u8) -> io::Result<()> {
        let mut body = id.to_be_bytes().to_vec();
        body.extend(self.no_properties());
        body.extend(text(filter));
        body.push(options);
        self.send(0x82, &body)
    }

    pub(crate) fn ping(&mut self) -> io::Result<()> {
        self.send(0xc0, &[])
    }

    pub(crate) fn disconnect(mut self) -> io::Result<()> {
        self.send(0xe0, &[])
    }

    /// The next packet; an error if the connection is over or nothing comes for long.
    pub(crate) fn receive(&mut self) -> io::Result<Got> {
        let (first, body) = self.packet()?;
        let id = |at: usize| {
            body.get(at..at + 2)
                .map(|id| u16::from_be_bytes([id[0], id[1]]))
        };
        Ok(match first >> 4 {
            3 => Got::Publish(self.read_publish(first, &body)),
            4 => Got::Ack(id(0).unwrap()),
            5 => Got::Rec(id(0).unwrap()),
            6 => Got::Rel(id(0).unwrap()),
            7 => Got::Comp(id(0).unwrap()),
            9 => Got::SubAck(id(0).unwrap()),
            11 => Got::UnsubAck(id(0).unwrap()),
            13 => Got::Pong,
            14 => Got::Disconnect,
            _ => panic!("a packet that starts with {first:#x}"),
        })
    }

    fn read_publish(&self, first: u8, body: &[u8]) -> Publish {
        let (length, mut rest) = body.split_at(2);
        let topic;
        (topic, rest) = rest.split_at(usize::from(u16::from_be_bytes([length[0], length[1]])));
        let qos = first >> 1 & 0b11;
        let mut id = 0;
        if qos > 0 {
            id = u16::from_be_bytes([rest[0], rest[1]]);
            rest = &rest[2..];
        }
        if self.version == 5 {
            assert!(rest[0] < 0x80, "few properties");
            rest = &rest[1 + usize::from(rest[0])..];
        }
        Publish {
            dup: first & 0b1000 != 0,
            qos,
            retain: first & 1 != 0,
            topic: String::from_utf8(topic.to_vec()).unwrap(),
            id,
            payload: String::from_utf8(rest.to_vec()).unwrap(),
        }
    }

    fn no_properties(&self) -> &'static [u8] {
        if self.version == 5 { &[0] } else { &[] }
    }

    fn send(&mut self, first: u8, body: &[u8]) -> io::Result<()> {
        self.socket.write_all(&packet(first, body))
    }

    /// First byte and body of the next packet.
    fn packet(&mut self) -> io::Result<(u8, Vec<u8>)> {
        loop {
            if let Some(whole) = self.whole_packet() {
                return Ok(whole);
            }
            let mut bytes = [0; 4096];
            match self.socket.read(&mut bytes)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => self.read.extend(&bytes[..count]),
            }
        }
    }

    fn whole_packet(&mut self) -> Option<(u8, Vec<u8>)> {
        let (mut length, mut at) = (0, 1);
        loop {
            let byte = *self.read.get(at)?;
            length |= usize::from(byte & 0x7f) << (7 * (at - 1));
            at += 1;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let body = self.read.get(at..at + length)?.to_vec();
        let first = self.read[0];
        self.read.drain(..at + length);
        Some((first, body))
    }
}

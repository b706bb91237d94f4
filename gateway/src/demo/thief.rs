//! Somebody who has a device's certificate and key, and uses them from another address.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context, Result, ensure};
use bytes::BytesMut;
use rumqttc::mqttbytes::{QoS, v4};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
};
use tokio_rustls::TlsConnector;

use super::fleet::Device;

/// Another address of this machine.
const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// Connects as `device` while its owner is connected, and sends a reading of its own.
pub(super) async fn impersonate(device: &Device, mqtt: SocketAddr) -> Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket
        .bind(SocketAddr::new(ADDRESS, 0))
        .with_context(|| format!("failed to use the address {ADDRESS}"))?;
    let stream = socket.connect(mqtt).await?;
    let name = ServerName::from(mqtt.ip());
    let mut stream = TlsConnector::from(device.tls.clone())
        .connect(name, stream)
        .await?;
    let mut packets = BytesMut::new();
    v4::Connect::new(&device.name).write(&mut packets)?;
    stream.write_all(&packets).await?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await?;
    ensure!(answer == [0x20, 2, 0, 0], "CONNACK is {answer:02x?}");
    packets.clear();
    v4::Publish::new(device.topic(), QoS::AtMostOnce, device.reading()).write(&mut packets)?;
    stream.write_all(&packets).await?;
    // The owner's client may have taken the session back already.
    _ = stream.shutdown().await;
    Ok(())
}

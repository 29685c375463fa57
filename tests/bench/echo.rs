//! An application that sends back what it gets.

use std::net::SocketAddr;

use tokio::io::copy;
use tokio::net::TcpListener;

pub(crate) async fn serve() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = socket.split();
                let _ = copy(&mut from, &mut to).await;
            });
        }
    });
    address
}

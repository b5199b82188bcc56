//! Frames of the agent's own.

use detector::{
    capture::{FrameSender, Hook, SendError, Side},
    net::ArpPacket,
};

use crate::lab::*;

#[test]
fn what_is_sent_goes_over_the_wire_as_it_is() {
    alone(async || {
        let port = wire("s1", "p1");
        let (mut tap, mut claims) = load(Hook::Auto);
        tap.attach(port, at(Side::Ingress)).unwrap();
        let sender = FrameSender::open().unwrap();
        for packet in [ArpPacket::probe(ALICE, ADDRESS), ArpPacket::announcement(ALICE, ADDRESS)] {
            sender.send(index("s1"), &packet.broadcast_frame(None)).unwrap();
            assert_eq!(said(&hear(&mut claims, 1).await[0]), says(&packet));
        }
    });
}

#[test]
fn a_sender_says_why_it_cannot() {
    alone(async || {
        wire("s1", "p1");
        let (sender, port, frame) = (FrameSender::open().unwrap(), index("s1"), request().broadcast_frame(None));
        assert!(matches!(sender.send(port, &frame[..9]), Err(SendError::Refused(_))));
        ip("link set s1 down\n");
        let error = sender.send(port, &frame).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot send: interface {port} is down"));
        ip("link del s1\n");
        assert!(matches!(sender.send(port, &frame), Err(SendError::Gone { port: gone }) if gone == port));
        caps::clear(None, caps::CapSet::Effective).unwrap();
        assert!(matches!(FrameSender::open(), Err(SendError::NotPermitted)));
    });
}

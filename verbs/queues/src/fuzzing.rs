//! What must hold for any bytes from a peer: shared by the fuzz target `queues` in `testbed/fuzz` and
//! by the test that replays its corpus.

use crate::Endpoint;
use crate::datagram::{AddressVector, DatagramEndpoint};
use crate::grh::{Grh, Layout};
use crate::work::WorkCompletion;

/// Any bytes are refused by each parser of this crate, or are something that encodes to the same bytes:
/// endpoints of both providers and of datagrams, what NICs in memory say to each other, and the GRH
/// area in front of a datagram.
///
/// # Panics
/// If that does not hold.
pub fn check_queues(bytes: &[u8]) {
    let endpoint = Endpoint(bytes.to_vec());
    if let Ok(parsed) = DatagramEndpoint::parse(&endpoint) {
        assert_eq!(parsed.encode(), endpoint);
        assert!(parsed.address().check().is_ok(), "{parsed:?}");
    }
    crate::rdma::check_endpoint(&endpoint);
    crate::soft::check_messages(&endpoint);
    if let Some((area, _)) = bytes.split_first_chunk::<{ Grh::LEN }>() {
        check_grh(area);
    }
}

fn check_grh(area: &[u8; Grh::LEN]) {
    let Ok(grh) = Grh::parse(area) else { return };
    assert!(grh.flow_label < 1 << 20, "{grh:?}");
    assert_eq!(grh.dscp() << 2 | grh.traffic_class & 3, grh.traffic_class);
    let mut written = grh.to_bytes();
    if grh.layout == Layout::Ipv6 {
        // The next header is not kept: it tells nothing that the completion does not.
        written[6] = area[6];
        assert_eq!(written, *area);
    } else {
        let again = Grh::parse(&written).expect("our own header");
        assert_eq!(Grh { layout: Layout::Ipv4, ..again }, grh);
    }
    // Whoever it claims to come from can be answered, or the address is refused.
    let reply = AddressVector::reply(&WorkCompletion::default(), Some(&grh));
    assert!(reply.check().is_ok() || grh.source == [0; 16], "{reply:?}");
}

//! Every state of a fence with every event, as a table in a snapshot.

use std::fmt::Write;

use netchannel_channel::fence::{Action, Fence, State};
use netchannel_units::Timestamp;
use netchannel_wire::control::ChannelNews;

const NOW: Timestamp = Timestamp::from_nanos(5_000_000_000);

/// What is said in these tests, always of the newest queue pair unless an epoch is named.
fn said(name: &str) -> ChannelNews {
    match name {
        "Fence" => ChannelNews::Fence { cause: "theirs".into() },
        "Fenced" => ChannelNews::Fenced { received: 4 },
        "Renew" => ChannelNews::Renew { endpoint: vec![0xE0] },
        _ => ChannelNews::Renewed,
    }
}

fn hear(fence: &mut Fence, name: &str) -> String {
    let epoch = fence.epoch();
    match fence.on_news(NOW, epoch, said(name)) {
        Ok(()) => String::new(),
        Err(error) => format!(" error: {error}"),
    }
}

/// The states, those that something of the peer is noted in apart.
const STATES: [(&str, State); 10] = [
    ("Up", State::Up),
    ("Draining", State::Draining),
    ("Draining, peer fenced", State::Draining),
    ("Fenced", State::Fenced),
    ("Down", State::Down),
    ("Down, peer renewed", State::Down),
    ("Offered", State::Offered),
    ("Connecting", State::Connecting),
    ("Connecting, peer connected", State::Connecting),
    ("Connected", State::Connected),
];

/// Takes a fence through its life up to this state of its second queue pair.
fn in_state(name: &str, state: State) -> Fence {
    let mut fence = Fence::new(Timestamp::ZERO);
    let mut to = |steps: &[&str]| {
        for step in steps {
            match *step {
                "fail" => fence.on_failed("ours"),
                "drain" => fence.on_drained(NOW, 7),
                "make" => fence.on_made(vec![0xE1]),
                "connect" => fence.on_connected(NOW),
                said => assert_eq!(hear(&mut fence, said), ""),
            }
        }
    };
    let down = ["fail", "drain", "Fenced"];
    let up = ["make", "Renew", "connect", "Renewed"];
    to(&down);
    match name {
        "Up" => to(&up),
        "Draining" => to(&[&up[..], &["fail"]].concat()),
        "Draining, peer fenced" => to(&[&up[..], &["fail", "Fenced"]].concat()),
        "Fenced" => to(&[&up[..], &["fail", "drain"]].concat()),
        "Down" => {}
        "Down, peer renewed" => to(&["Renew"]),
        "Offered" => to(&up[..1]),
        "Connecting" => to(&up[..2]),
        "Connecting, peer connected" => to(&["make", "Renew", "Renewed"]),
        _ => to(&up[..3]),
    }
    while fence.poll_action().is_some() {}
    assert_eq!(fence.state(), state, "{name}");
    fence
}

type Event = fn(&mut Fence) -> String;

const EVENTS: [(&str, Event); 13] = [
    ("on_failed", |f| {
        f.on_failed("ours");
        String::new()
    }),
    ("on_drained", |f| {
        f.on_drained(NOW, 9);
        String::new()
    }),
    ("on_made", |f| {
        f.on_made(vec![0xE1]);
        String::new()
    }),
    ("on_make_failed", |f| {
        f.on_make_failed(NOW);
        String::new()
    }),
    ("on_connected", |f| {
        f.on_connected(NOW);
        String::new()
    }),
    ("on_proved", |f| {
        f.on_proved();
        String::new()
    }),
    ("Fence", |f| hear(f, "Fence")),
    ("Fenced", |f| hear(f, "Fenced")),
    ("Renew", |f| hear(f, "Renew")),
    ("Renewed", |f| hear(f, "Renewed")),
    ("Fence of an earlier one", |f| {
        format!(": {:?}", f.on_news(NOW, f.epoch() - 1, said("Fence")))
    }),
    ("Renewed of an earlier one", |f| {
        format!(": {:?}", f.on_news(NOW, f.epoch() - 1, said("Renewed")))
    }),
    ("Renew of a later one", |f| match f.on_news(NOW, f.epoch() + 1, said("Renew")) {
        Ok(()) => "taken".to_owned(),
        Err(error) => format!(" error: {error}"),
    }),
];

fn describe(fence: &mut Fence) -> String {
    let mut text = format!("{:?} of {}", fence.state(), fence.epoch());
    if fence.wants_queue_pair(NOW) {
        text += ", wants a queue pair";
    } else if let Some(at) = fence.next_timeout() {
        write!(text, ", wants one in {:?}", at - NOW).unwrap();
    }
    while let Some(action) = fence.poll_action() {
        match action {
            Action::Say { epoch, news } => write!(text, "; says {news:?} of {epoch}").unwrap(),
            other => write!(text, "; {other:?}").unwrap(),
        }
    }
    text
}

#[test]
fn every_state_with_every_event() {
    let mut table = String::new();
    for (name, state) in STATES {
        writeln!(table, "{name}").unwrap();
        for (event, input) in EVENTS {
            let mut fence = in_state(name, state);
            let answer = input(&mut fence);
            writeln!(table, "  {event:26} -> {}{answer}", describe(&mut fence)).unwrap();
        }
    }
    insta::assert_snapshot!(table);
}

#[test]
fn every_state_is_in_the_table() {
    for state in State::ALL {
        assert!(STATES.iter().any(|(_, known)| *known == state), "{state:?}");
    }
}

//! How a model of a link is written: `rate=2gbit,delay=5us`.

use netchannel_verbs::soft::LinkModel;

use crate::quantity;

/// Reads a link. Everything that is not named is as in a link without limits and faults.
pub(crate) fn parse(text: &str) -> Result<LinkModel, String> {
    let mut link = LinkModel::default();
    let mut seen = Vec::new();
    for part in text.split(',') {
        let (name, value) = part.split_once('=').ok_or_else(|| {
            format!("`{part}` says nothing about a link; write for example rate=2gbit,delay=5us")
        })?;
        if seen.contains(&name) {
            return Err(format!("`{name}` is there twice"));
        }
        seen.push(name);
        match name {
            "rate" => link.rate = quantity::rate(value)?,
            "delay" => link.delay = quantity::delay(value)?,
            "queue" => link.queue_bytes = quantity::bytes(value)?,
            "ecn" => link.ecn_threshold = quantity::bytes(value)?,
            "loss" => link.loss = quantity::probability(value)?,
            "reorder" => link.reorder = quantity::probability(value)?,
            _ => {
                return Err(format!(
                    "a link has no `{name}`; it has rate, delay, queue, ecn, loss and reorder"
                ));
            }
        }
    }
    Ok(link)
}

/// Writes a link so that [`parse`] reads the same.
pub(crate) fn show(link: &LinkModel) -> String {
    let LinkModel { rate, delay, queue_bytes, ecn_threshold, loss, reorder } = link;
    format!(
        "rate={}bit,delay={}ns,queue={queue_bytes},ecn={ecn_threshold},loss={loss},\
         reorder={reorder}",
        rate.bits_per_second(),
        delay.as_nanos()
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use netchannel::Bandwidth;

    use super::*;

    #[test]
    fn links_as_people_write_them() {
        let link = parse("rate=2gbit,delay=5us,queue=256KiB,ecn=64KiB,loss=0.01").unwrap();
        assert_eq!((link.rate, link.delay), (Bandwidth::from_gbps(2), Duration::from_micros(5)));
        assert_eq!((link.queue_bytes, link.ecn_threshold), (256 << 10, 64 << 10));
        assert_eq!((link.loss, link.reorder), (0.01, 0.0));
        assert_eq!(parse(&show(&link)), Ok(link));
        assert_eq!(parse(&show(&LinkModel::default())), Ok(LinkModel::default()));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, wrong) in [
            ("", "says nothing"),
            ("2gbit", "says nothing"),
            ("rate=2gbit,", "says nothing"),
            ("rate=2", "no rate"),
            ("rate=2Gbit", "no rate"),
            ("delay=5", "no time"),
            ("delay=-5us", "no time"),
            ("queue=many", "no number of bytes"),
            ("loss=2", "from 0 to 1"),
            ("loss=NaN", "from 0 to 1"),
            ("rate=1gbit,rate=2gbit", "twice"),
            ("speed=2gbit", "has no `speed`"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(wrong), "{text}: {error}");
        }
    }
}

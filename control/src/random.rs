//! Everything that must not be guessed, and the names and colours that nobody chose.

use gantry_model::{Id, container::Color};

use crate::error::Result;

/// A new id.
pub(crate) fn id<K>() -> Result<Id<K>> {
    Ok(Id::from_bytes(bytes()?))
}

/// Random octets.
pub(crate) fn bytes<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// A colour for something that got none: bright enough for dark text, dark enough for white.
pub(crate) fn color() -> Result<Color> {
    let [r, g, b] = bytes()?;
    Ok(Color::from_rgb([r, g, b].map(|part: u8| 48 + part % 160)))
}

/// A name for something that got none, as `quiet-harbor`. From the second attempt on it ends in four
/// random digits, so that a few attempts find a free one among any number of names.
pub(crate) fn name(attempt: u32) -> Result<String> {
    let [adjective, noun, high, low] = bytes()?;
    let adjective = pick(&ADJECTIVES, adjective);
    let noun = pick(&NOUNS, noun);
    Ok(if attempt == 0 {
        format!("{adjective}-{noun}")
    } else {
        format!("{adjective}-{noun}-{:04x}", u16::from_be_bytes([high, low]))
    })
}

fn pick(words: &[&'static str], random: u8) -> &'static str {
    words.get(usize::from(random) % words.len().max(1)).copied().unwrap_or("plain")
}

const ADJECTIVES: [&str; 48] = [
    "amber", "ancient", "autumn", "bold", "brave", "bright", "brisk", "calm", "clear", "clever",
    "cosy", "crisp", "dawn", "deep", "eager", "early", "fair", "fleet", "fresh", "gentle",
    "golden", "grand", "green", "hidden", "honest", "humble", "jolly", "keen", "kind", "lively",
    "lucky", "mellow", "mild", "misty", "nimble", "noble", "patient", "proud", "quick", "quiet",
    "silver", "snowy", "steady", "swift", "tidy", "warm", "wild", "wise",
];

const NOUNS: [&str; 48] = [
    "acorn", "badger", "beacon", "birch", "brook", "canyon", "cedar", "cliff", "cloud", "comet",
    "coral", "crane", "creek", "dune", "falcon", "fern", "fjord", "forest", "fox", "garden",
    "glacier", "grove", "harbor", "hawk", "heron", "hill", "island", "juniper", "lagoon", "lake",
    "lantern", "lark", "maple", "meadow", "moon", "otter", "pebble", "pine", "prairie", "raven",
    "reef", "river", "robin", "sparrow", "spruce", "summit", "valley", "willow",
];

#[cfg(test)]
mod tests {
    use gantry_model::container::ContainerName;

    use super::*;

    #[test]
    fn every_generated_name_is_a_container_name() {
        for adjective in ADJECTIVES {
            for noun in NOUNS {
                ContainerName::parse("name", &format!("{adjective}-{noun}-00ff")).unwrap();
            }
        }
        let (first, second) = (name(0).unwrap(), name(1).unwrap());
        ContainerName::parse("name", &first).unwrap();
        assert_eq!(second.split('-').count(), 3, "{second}");
    }
}

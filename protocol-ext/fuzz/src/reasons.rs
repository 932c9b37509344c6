//! What the readers of a target make of a corpus: how much they take, and why they refuse the rest.
//!
//! Usage: `reasons TARGET FOLDER`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::{fs, io};

use protocol_ext::hostile::targets::Verdict;
use protocol_ext_fuzz::TARGETS;

fn main() -> io::Result<()> {
    let wrong = || io::Error::new(io::ErrorKind::InvalidInput, "reasons TARGET FOLDER");
    let mut arguments = std::env::args().skip(1);
    let (Some(name), Some(folder)) = (arguments.next(), arguments.next()) else {
        return Err(wrong());
    };
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).ok_or_else(wrong)?;
    let (mut inputs, mut taken, mut refused) = (0, 0, BTreeMap::<&str, u64>::new());
    for entry in fs::read_dir(PathBuf::from(folder))? {
        let input = fs::read(entry?.path())?;
        inputs += 1;
        target(&input, &mut |verdict| match verdict {
            Verdict::Other => {}
            Verdict::Taken => taken += 1,
            Verdict::Refused(why) => *refused.entry(why).or_default() += 1,
        });
    }
    let all: u64 = refused.values().sum();
    println!("{name}: {inputs} inputs, {taken} times taken, {all} times refused: {refused:?}");
    Ok(())
}

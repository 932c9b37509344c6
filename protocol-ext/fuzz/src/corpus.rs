//! Writes the corpus of every fuzz target, made from the golden frames and those drawn.
//!
//! Usage: `corpus GOLDEN_FOLDER CORPUS_FOLDER`. Invariant: the same frames give the same files.

use std::path::{Path, PathBuf};
use std::{fs, io};

use protocol_ext::hostile::{corpus, targets::records};
use protocol_ext_fuzz::CODECS;

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1).map(PathBuf::from);
    let (Some(golden), Some(to)) = (arguments.next(), arguments.next()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "corpus GOLDEN CORPUS"));
    };
    let frames = corpus::all(&golden)?;
    let sections = corpus::sections(&frames);
    let mut count = 0;
    let mut put = |target: &str, bytes: &[u8]| {
        count += 1;
        write(&to.join(target), count, bytes)
    };
    for frame in &frames {
        let key = u8::try_from(frame.api).unwrap_or(0);
        let version = u8::try_from(frame.version).unwrap_or(0);
        let named = [&[key, version], &frame.bytes[..]].concat();
        if frame.request {
            put("request", &frame.bytes)?;
            continue;
        }
        put("response", &named)?;
        if let Some(n) = [0, 1, 78, 79].iter().position(|api| *api == frame.api) {
            let n = u8::try_from(n).unwrap_or(0);
            put("tail", &[&[n, version], &frame.bytes[..]].concat())?;
        }
    }
    for section in &sections {
        put("batch", section)?;
        put("rewrite", section)?;
    }
    for (codec, packed) in corpus::packed(&sections) {
        let n = CODECS.iter().position(|known| *known == codec).unwrap_or(0);
        put("codec", &[&[u8::try_from(n).unwrap_or(0)], &packed[..]].concat())?;
    }
    put("reference", &records::signed().map_err(io::Error::other)?)?;
    println!("{count} files");
    Ok(())
}

fn write(folder: &Path, n: usize, bytes: &[u8]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join(format!("{n:05}")), bytes)
}

//! Uploads in parts, each with a name of its own, and listings of them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{Answer, CHECKSUM, LONG_AGO, PAGE, Request, S3, State, checksum};

/// When everything was begun that is new: later than any clock says.
const JUST_NOW: &str = "2099-01-01T00:00:00.000Z";
/// What a service says that does not know when.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// One that is not complete.
#[derive(Debug, Default)]
pub(super) struct Upload {
    key: String,
    parts: BTreeMap<u32, Vec<u8>>,
    /// Whether its parts must have checksums.
    checked: bool,
    begun: &'static str,
}

impl S3 {
    /// Parts of uploads that were neither completed nor given up.
    pub fn parts_left(&self) -> usize {
        self.lock().uploads.values().map(|upload| upload.parts.len()).sum()
    }

    /// Keys of the uploads that are not complete, in order.
    pub fn uploads_left(&self) -> Vec<String> {
        let mut keys: Vec<_> = self.lock().uploads.values().map(|u| u.key.clone()).collect();
        keys.sort();
        keys
    }

    /// Leaves an upload of one part, as a process does that ends while it stores.
    pub fn leave_upload(&self, key: &str, part: &[u8]) {
        let mut state = self.lock();
        let id = begin(&mut state, key);
        if let Some(upload) = state.uploads.get_mut(&id) {
            upload.parts.insert(1, part.to_vec());
        }
    }

    /// Makes all uploads there are old.
    pub fn age_uploads(&self) {
        self.lock().uploads.values_mut().for_each(|upload| upload.begun = LONG_AGO);
    }

    /// Forgets when the uploads of a key were begun.
    pub fn forget_age(&self, key: &str) {
        let mut state = self.lock();
        let of_key = state.uploads.values_mut().filter(|upload| upload.key == key);
        of_key.for_each(|upload| upload.begun = NEVER);
    }
}

/// Begins an upload and gives its name.
fn begin(state: &mut State, key: &str) -> String {
    state.uploads_begun += 1;
    let id = format!("upload-{:06}", state.uploads_begun);
    let upload = Upload { key: key.to_owned(), begun: JUST_NOW, ..Upload::default() };
    state.uploads.insert(id.clone(), upload);
    id
}

/// Answers what is about uploads.
pub(super) fn in_parts(request: &Request, state: &mut State) -> Answer {
    let Request { method, key, query, headers, body, .. } = request;
    let Some(id) = query.get("uploadId") else {
        return match method.as_str() {
            "GET" => list(state, query),
            "POST" => {
                let checked = headers.get("x-amz-checksum-algorithm");
                let id = begin(state, key);
                if let Some(upload) = state.uploads.get_mut(&id) {
                    upload.checked = checked.is_some_and(|name| name == "CRC32C");
                }
                let id = format!("<UploadId>{id}</UploadId>");
                let result = "InitiateMultipartUploadResult";
                Answer::of(200, format!("<{result}>{id}</{result}>"))
            }
            _ => Answer::error(405, "MethodNotAllowed"),
        };
    };
    let upload = state.uploads.get_mut(id).filter(|upload| upload.key == *key);
    let Some(upload) = upload else { return Answer::error(404, "NoSuchUpload") };
    match method.as_str() {
        "PUT" if upload.checked && !headers.contains_key(CHECKSUM) => {
            Answer::error(400, "InvalidRequest")
        }
        "PUT" => {
            let number = query.get("partNumber").and_then(|n| n.parse().ok()).unwrap_or(0);
            upload.parts.insert(number, body.clone());
            Answer { headers: format!("ETag: \"{number}\"\r\n"), ..Answer::of(200, "") }
        }
        "POST" => {
            let told = String::from_utf8_lossy(body);
            let told: Vec<_> = told.split("<ChecksumCRC32C>").skip(1).collect();
            let fits = |(told, part): (&&str, &Vec<u8>)| {
                told.split_once('<').is_some_and(|(sum, _)| sum == checksum(part))
            };
            let parts = &upload.parts;
            let all = told.len() == parts.len() && told.iter().zip(parts.values()).all(fits);
            if upload.checked && !all {
                return Answer::error(400, "InvalidPart");
            }
            let whole: Vec<u8> = parts.values().flatten().copied().collect();
            state.uploads.remove(id);
            state.objects.insert(key.clone(), whole);
            Answer::of(200, "<CompleteMultipartUploadResult></CompleteMultipartUploadResult>")
        }
        "GET" => {
            let mut xml = String::from("<ListPartsResult><IsTruncated>false</IsTruncated>");
            for (number, part) in &upload.parts {
                let _ = write!(
                    xml,
                    "<Part><PartNumber>{number}</PartNumber><Size>{}</Size></Part>",
                    part.len()
                );
            }
            xml.push_str("</ListPartsResult>");
            Answer::of(200, xml)
        }
        "DELETE" => {
            state.uploads.remove(id);
            Answer::of(204, "")
        }
        _ => Answer::error(405, "MethodNotAllowed"),
    }
}

/// A page of the uploads that are not complete, in the order of their keys.
fn list(state: &State, query: &BTreeMap<String, String>) -> Answer {
    let asked = |name: &str| query.get(name).map_or("", String::as_str);
    let (prefix, after) = (asked("prefix"), (asked("key-marker"), asked("upload-id-marker")));
    let all = state.uploads.iter().map(|(id, upload)| (&*upload.key, &**id, upload));
    let mut found: Vec<_> = all.filter(|(key, ..)| key.starts_with(prefix)).collect();
    found.sort_by_key(|(key, id, _)| (*key, *id));
    found.retain(|(key, id, _)| (*key, *id) > after);
    let is_truncated = found.len() > PAGE;
    found.truncate(PAGE);
    let mut xml = format!("<ListMultipartUploadsResult><IsTruncated>{is_truncated}</IsTruncated>");
    if let Some((key, id, _)) = found.last().filter(|_| is_truncated) {
        let _ = write!(
            xml,
            "<NextKeyMarker>{key}</NextKeyMarker><NextUploadIdMarker>{id}</NextUploadIdMarker>"
        );
    }
    for (key, id, upload) in found {
        let begun = upload.begun;
        let _ = write!(
            xml,
            "<Upload><Key>{key}</Key><UploadId>{id}</UploadId><Initiated>{begun}</Initiated>\
             </Upload>"
        );
    }
    xml.push_str("</ListMultipartUploadsResult>");
    Answer::of(200, xml)
}

//! The same component under other names: what it imports and exports, and nothing within.

use bytes::Bytes;
use wasmparser::{BinaryReader, ComponentExport, ComponentImport, FromReader};

const HEADER_LEN: usize = 8;
const IMPORTS: u8 = 10;
const EXPORTS: u8 = 11;

/// The component with each name that it imports or exports as `rename` says, where that says anything.
#[track_caller]
pub(super) fn renamed(wasm: &[u8], rename: impl Fn(&str) -> Option<String>) -> Bytes {
    let mut file = wasm[..HEADER_LEN].to_vec();
    let mut reader = BinaryReader::new(&wasm[HEADER_LEN..], 0);
    while !reader.eof() {
        let id = reader.read_u8().unwrap();
        let len = reader.read_var_u32().unwrap() as usize;
        let body = reader.read_bytes(len).unwrap();
        let body = match id {
            IMPORTS => names(body, &rename, |import: &ComponentImport<'_>| {
                import.name.name
            }),
            EXPORTS => names(body, &rename, |export: &ComponentExport<'_>| {
                export.name.name
            }),
            _ => body.to_vec(),
        };
        file.push(id);
        push_length(&mut file, body.len());
        file.extend(body);
    }
    file.into()
}

fn names<'a, T: FromReader<'a>>(
    list: &'a [u8],
    rename: impl Fn(&str) -> Option<String>,
    name: impl Fn(&T) -> &'a str,
) -> Vec<u8> {
    let mut reader = BinaryReader::new(list, 0);
    let count = reader.read_var_u32().unwrap();
    let mut renamed = Vec::new();
    push_length(&mut renamed, count as usize);
    for _ in 0..count {
        let start = reader.current_position();
        let entry: T = reader.read().unwrap();
        let bytes = &list[start..reader.current_position()];
        let old = name(&entry);
        let Some(new) = rename(old) else {
            renamed.extend(bytes);
            continue;
        };
        // One byte says what kind of name it is, then come its length and itself.
        let (kind, rest) = bytes.split_at(1);
        let mut length = Vec::new();
        push_length(&mut length, old.len());
        let rest = rest.strip_prefix(&*length).expect("a plain name");
        let rest = rest.strip_prefix(old.as_bytes()).expect("a plain name");
        renamed.extend(kind);
        push_length(&mut renamed, new.len());
        renamed.extend(new.as_bytes());
        renamed.extend(rest);
    }
    renamed
}

/// As unsigned LEB128.
fn push_length(file: &mut Vec<u8>, mut length: usize) {
    loop {
        let low = u8::try_from(length & 0x7f).unwrap();
        length >>= 7;
        if length == 0 {
            file.push(low);
            return;
        }
        file.push(low | 0x80);
    }
}

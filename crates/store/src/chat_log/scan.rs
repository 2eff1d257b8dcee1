//! Finds the items of a log without parsing the whole of it.
//!
//! A log is a JSON array of items, or items one after another (JSON lines, or one object). The scanner reads
//! on only as far as the end of an item, so its memory is that of the largest item. It checks the structure
//! of what it passes (brackets, commas, keys, the ends of strings) and so meets a broken item at its first
//! wrong byte; then it looks for the place where the next item starts, and the rest is not lost. Words and
//! numbers are left to the parser.

use std::io::{self, Read};

use memchr::{memchr, memchr_iter};

/// How much is read at a time.
const CHUNK: usize = 64 * 1024;
/// How far the end of a broken item is looked for by its brackets.
const BROKEN_ITEM_BYTES: usize = 1024 * 1024;
/// How many objects without an end are tried as the next item: each costs a look at the rest of the file.
const MOST_CUT_OBJECTS: usize = 100;

/// A piece of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawItem {
    /// Its number in the log, from 1.
    pub number: u64,
    /// The line it starts on, from 1.
    pub line: u64,
    /// Where it starts, in bytes.
    pub offset: u64,
    /// Its bytes, or why they are no item.
    pub content: Result<Vec<u8>, String>,
}

/// The items of a log, in order. A broken one is an item too, with the reason; only a fault of the reader
/// ends the iteration early.
pub struct Items<R> {
    source: Source<R>,
    place: Place,
    number: u64,
    is_item: fn(&[u8]) -> bool,
}

/// Where in the log the scanner stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Start,
    /// In an array, where an item or its end may come.
    BeforeItem,
    /// In an array, behind an item.
    BehindItem,
    /// Between items that follow one another.
    BetweenValues,
    /// As before, and an item never goes past its line.
    BetweenLines,
    End,
}

impl<R: Read> Items<R> {
    /// The items of what `input` gives. `is_item` tells, after a broken item of an array, whether a JSON
    /// object that was found behind it is an item of the log or still a part of the broken one.
    pub fn new(input: R, is_item: fn(&[u8]) -> bool) -> Self {
        Self { source: Source::new(input), place: Place::Start, number: 0, is_item }
    }

    /// How many bytes have been passed.
    pub fn offset(&self) -> u64 {
        self.source.offset
    }

    fn advance(&mut self) -> io::Result<Option<RawItem>> {
        loop {
            match self.place {
                Place::Start => self.start()?,
                Place::BeforeItem => return self.before_item(),
                Place::BehindItem => {
                    if let Some(problem) = self.behind_item()? {
                        return Ok(Some(problem));
                    }
                }
                Place::BetweenValues => return self.value(),
                Place::BetweenLines => return self.line(),
                Place::End => return Ok(None),
            }
        }
    }

    fn start(&mut self) -> io::Result<()> {
        if self.source.starts_with(b"\xEF\xBB\xBF")? {
            self.source.pass(3);
        }
        self.place = match self.source.pass_space()? {
            None => Place::End,
            Some(b'[') => {
                self.source.pass(1);
                Place::BeforeItem
            }
            Some(_) => Place::BetweenValues,
        };
        Ok(())
    }

    fn before_item(&mut self) -> io::Result<Option<RawItem>> {
        match self.source.pass_space()? {
            None => {
                self.place = Place::End;
                let reason = format!("the array is not closed: the file ends behind item {}", self.number);
                Ok(Some(self.problem(reason)))
            }
            Some(b']') => {
                self.source.pass(1);
                self.behind_array()
            }
            Some(_) => {
                self.place = Place::BehindItem;
                match self.source.scan()? {
                    Scan::Whole(length) => Ok(Some(self.take(length))),
                    Scan::Broken(length, reason) => self.broken_item(length, &reason).map(Some),
                    Scan::Cut => {
                        let item = self.broken_item(self.source.ahead(), "the file ends inside it")?;
                        if self.source.peek(0)?.is_none() {
                            self.place = Place::End;
                        }
                        Ok(Some(item))
                    }
                }
            }
        }
    }

    /// A comma, the end of the array, or something that should not be there.
    fn behind_item(&mut self) -> io::Result<Option<RawItem>> {
        self.place = Place::BeforeItem;
        match self.source.pass_space()? {
            Some(b',') => self.source.pass(1),
            None | Some(b']') => {}
            Some(_) => {
                let next = self.next_item(0, usize::MAX)?;
                let reason = format!("behind item {} comes no comma; passed over {next} bytes", self.number);
                // A forgotten comma alone loses nothing.
                let problem = (next > 0).then(|| self.problem(reason));
                self.source.pass(next);
                return Ok(problem);
            }
        }
        Ok(None)
    }

    fn behind_array(&mut self) -> io::Result<Option<RawItem>> {
        self.place = Place::End;
        if self.source.pass_space()?.is_none() {
            return Ok(None);
        }
        Ok(Some(self.problem("the array is closed, but the file goes on; the rest was not read".to_owned())))
    }

    /// A broken item of an array, whose first wrong byte lies `wrong` bytes ahead: passes over it.
    fn broken_item(&mut self, wrong: usize, reason: &str) -> io::Result<RawItem> {
        let at = self.source.offset + wrong as u64;
        let end = self.source.end_by_brackets()?;
        let length = self.next_item(1, end.unwrap_or(usize::MAX))?;
        let item = self.problem(format!("{reason} (byte {at} of the file)"));
        self.source.pass(length);
        Ok(item)
    }

    /// How far ahead the next item of the array is, from `from` on; `to`, or the end of the file, when none
    /// comes before.
    fn next_item(&mut self, from: usize, to: usize) -> io::Result<usize> {
        let (mut at, mut cut) = (from, 0);
        while at < to && cut < MOST_CUT_OBJECTS {
            match self.source.peek(at)? {
                None => return Ok(at),
                Some(b'{') => match self.source.scan_from(at)? {
                    Scan::Whole(length) if (self.is_item)(self.source.slice(at, length)) => return Ok(at),
                    Scan::Whole(length) => at += length,
                    Scan::Broken(..) => at += 1,
                    Scan::Cut => (at, cut) = (at + 1, cut + 1),
                },
                Some(_) => at += 1,
            }
        }
        Ok(if to == usize::MAX { self.source.all_ahead()? } else { to })
    }

    /// The next of values that follow one another.
    fn value(&mut self) -> io::Result<Option<RawItem>> {
        loop {
            match self.source.pass_space()? {
                None => {
                    self.place = Place::End;
                    return Ok(None);
                }
                Some(b',') if self.number > 0 => self.source.pass(1),
                Some(b'{') => break,
                Some(_) => {
                    let length = self.source.line_length()?;
                    return Ok(Some(self.take(length)));
                }
            }
        }
        match self.source.scan()? {
            Scan::Whole(length) => Ok(Some(self.take(length))),
            Scan::Broken(length, reason) => self.broken_value(length, &reason).map(Some),
            Scan::Cut => self.broken_value(self.source.ahead(), "the file ends inside it").map(Some),
        }
    }

    /// A broken value: a line of JSON lines, or an object over several lines.
    fn broken_value(&mut self, wrong: usize, reason: &str) -> io::Result<RawItem> {
        let at = self.source.offset + wrong as u64;
        let first_line = self.source.line_length()?;
        let mut length = first_line;
        if wrong > first_line {
            if self.source.next_object_line(first_line, wrong + 1)?.is_some() {
                // Another item starts on a line in between: each line is an item of its own.
                self.place = Place::BetweenLines;
                let item = self.problem("the line ends inside it".to_owned());
                self.source.pass(first_line);
                return Ok(item);
            }
            length = self.source.next_object_line(wrong, usize::MAX)?.unwrap_or(self.source.ahead());
        }
        let item = self.problem(format!("{reason} (byte {at} of the file)"));
        self.source.pass(length);
        Ok(item)
    }

    fn line(&mut self) -> io::Result<Option<RawItem>> {
        if self.source.pass_space()?.is_none() {
            self.place = Place::End;
            return Ok(None);
        }
        let length = self.source.line_length()?;
        Ok(Some(self.take(length)))
    }

    fn take(&mut self, length: usize) -> RawItem {
        let content = Ok(self.source.slice(0, length).to_vec());
        let item = self.numbered(content);
        self.source.pass(length);
        item
    }

    fn problem(&mut self, reason: String) -> RawItem {
        self.numbered(Err(reason))
    }

    fn numbered(&mut self, content: Result<Vec<u8>, String>) -> RawItem {
        self.number += 1;
        RawItem { number: self.number, line: self.source.line, offset: self.source.offset, content }
    }
}

impl<R: Read> Iterator for Items<R> {
    type Item = io::Result<RawItem>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.advance().transpose();
        if matches!(item, Some(Err(_))) {
            self.place = Place::End;
        }
        item
    }
}

/// What is read and not yet passed.
struct Source<R> {
    input: R,
    buffer: Vec<u8>,
    /// Where in the buffer the scanner stands.
    at: usize,
    /// Where in the input, in bytes from 0 and in lines from 1.
    offset: u64,
    line: u64,
    ended: bool,
}

/// How a value ends.
enum Scan {
    /// After that many bytes.
    Whole(usize),
    /// Never: the byte at that place should not be there.
    Broken(usize, String),
    /// Never: the input ends.
    Cut,
}

impl<R: Read> Source<R> {
    fn new(input: R) -> Self {
        Self { input, buffer: Vec::new(), at: 0, offset: 0, line: 1, ended: false }
    }

    /// The bytes that are in the buffer ahead of the scanner.
    fn ahead(&self) -> usize {
        self.buffer.len() - self.at
    }

    /// The bytes that are left of the input.
    fn all_ahead(&mut self) -> io::Result<usize> {
        while !self.ended {
            self.fill()?;
        }
        Ok(self.ahead())
    }

    fn slice(&self, from: usize, length: usize) -> &[u8] {
        &self.buffer[self.at + from..self.at + from + length]
    }

    /// The byte that far ahead; `None` behind the end of the input.
    fn peek(&mut self, ahead: usize) -> io::Result<Option<u8>> {
        loop {
            if let Some(byte) = self.buffer.get(self.at + ahead) {
                return Ok(Some(*byte));
            }
            if self.ended {
                return Ok(None);
            }
            self.fill()?;
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        self.buffer.drain(..self.at);
        self.at = 0;
        let held = self.buffer.len();
        self.buffer.resize(held + CHUNK, 0);
        let read = loop {
            match self.input.read(&mut self.buffer[held..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.buffer.truncate(held + *read.as_ref().unwrap_or(&0));
        self.ended = read? == 0;
        Ok(())
    }

    fn pass(&mut self, length: usize) {
        let lines = memchr_iter(b'\n', self.slice(0, length)).count();
        self.at += length;
        self.offset += length as u64;
        self.line += lines as u64;
    }

    fn starts_with(&mut self, text: &[u8]) -> io::Result<bool> {
        for (index, byte) in text.iter().enumerate() {
            if self.peek(index)? != Some(*byte) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Passes white space; the byte behind it.
    fn pass_space(&mut self) -> io::Result<Option<u8>> {
        while let Some(byte) = self.peek(0)? {
            if !is_space(byte) {
                return Ok(Some(byte));
            }
            self.pass(1);
        }
        Ok(None)
    }

    /// The bytes up to the end of the line, without the line break.
    fn line_length(&mut self) -> io::Result<usize> {
        let mut searched = 0;
        loop {
            if let Some(found) = memchr(b'\n', &self.buffer[self.at + searched..]) {
                return Ok(searched + found);
            }
            searched = self.ahead();
            if self.ended {
                return Ok(searched);
            }
            self.fill()?;
        }
    }

    /// Where the next line that starts with `{` begins, looking from `from` up to `to`.
    fn next_object_line(&mut self, from: usize, to: usize) -> io::Result<Option<usize>> {
        let mut at = from;
        while at < to {
            match self.peek(at)? {
                None => return Ok(None),
                Some(b'\n') if self.peek(at + 1)? == Some(b'{') => return Ok((at + 1 < to).then_some(at + 1)),
                Some(_) => at += 1,
            }
        }
        Ok(None)
    }

    fn scan(&mut self) -> io::Result<Scan> {
        self.scan_from(0)
    }

    /// Where the value that starts `from` bytes ahead ends; places are counted from there.
    fn scan_from(&mut self, from: usize) -> io::Result<Scan> {
        let mut structure = Structure::default();
        let mut at = 0;
        while let Some(byte) = self.peek(from + at)? {
            match structure.step(byte) {
                Step::More => at += 1,
                Step::Last => return Ok(Scan::Whole(at + 1)),
                Step::Behind => return Ok(Scan::Whole(at)),
                Step::Wrong(wanted) => return Ok(Scan::Broken(at, wrong(byte, wanted))),
            }
        }
        Ok(if structure.may_end() { Scan::Whole(at) } else { Scan::Cut })
    }

    /// The length of a broken item by its brackets and strings alone, when they fit and a comma or the end
    /// of the array follows.
    fn end_by_brackets(&mut self) -> io::Result<Option<usize>> {
        let (mut open, mut in_string, mut at) = (Vec::new(), false, 0);
        loop {
            let Some(byte) = self.peek(at)?.filter(|_| at < BROKEN_ITEM_BYTES) else { return Ok(None) };
            at += 1;
            match byte {
                b'\\' if in_string => at += 1,
                b'\n' if in_string => return Ok(None),
                b'"' => in_string = !in_string,
                _ if in_string => {}
                b'{' | b'[' => open.push(byte),
                b',' if open.is_empty() => return Ok(Some(at - 1)),
                b'}' | b']' => {
                    if open.pop() != Some(opener(byte)) {
                        return Ok(None);
                    }
                    if open.is_empty() {
                        break;
                    }
                }
                _ => {}
            }
        }
        let length = at;
        while let Some(byte) = self.peek(at)? {
            match byte {
                b',' | b']' => return Ok(Some(length)),
                byte if is_space(byte) => at += 1,
                _ => break,
            }
        }
        Ok(None)
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

fn opener(closer: u8) -> u8 {
    if closer == b'}' { b'{' } else { b'[' }
}

fn wrong(byte: u8, wanted: &str) -> String {
    match byte {
        b'\n' => format!("the line ends where {wanted} is expected"),
        b'!'..=b'~' => format!("{:?} stands where {wanted} is expected", char::from(byte)),
        _ => format!("byte 0x{byte:02X} stands where {wanted} is expected"),
    }
}

/// The structure of one JSON value, byte by byte.
#[derive(Default)]
struct Structure {
    open: Vec<u8>,
    expect: Expect,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Expect {
    #[default]
    Value,
    ValueOrEnd,
    Key,
    KeyOrEnd,
    Colon,
    CommaOrEnd,
    /// In a string: whether it is a key, and whether the next byte is escaped.
    Text {
        key: bool,
        escaped: bool,
    },
    /// In a number, `true`, `false`, `null`, or what stands in their place.
    Word,
}

enum Step {
    More,
    /// The value ends with this byte.
    Last,
    /// The value ended before this byte.
    Behind,
    Wrong(&'static str),
}

impl Structure {
    fn step(&mut self, byte: u8) -> Step {
        if let Expect::Text { key, escaped } = self.expect {
            return self.text(byte, key, escaped);
        }
        if self.expect == Expect::Word {
            if !is_space(byte) && !matches!(byte, b',' | b']' | b'}' | b'{' | b'[' | b':' | b'"') {
                return Step::More;
            }
            if self.open.is_empty() {
                return Step::Behind;
            }
            self.expect = Expect::CommaOrEnd;
        }
        if is_space(byte) {
            return Step::More;
        }
        match self.expect {
            Expect::Value => self.value(byte),
            Expect::ValueOrEnd if byte == b']' => self.close(byte),
            Expect::ValueOrEnd => self.value(byte),
            Expect::KeyOrEnd if byte == b'}' => self.close(byte),
            Expect::Key | Expect::KeyOrEnd if byte == b'"' => self.go(Expect::Text { key: true, escaped: false }),
            Expect::Key | Expect::KeyOrEnd => Step::Wrong("a key in quotes"),
            Expect::Colon if byte == b':' => self.go(Expect::Value),
            Expect::Colon => Step::Wrong("a colon"),
            _ => self.comma_or_end(byte),
        }
    }

    fn go(&mut self, expect: Expect) -> Step {
        self.expect = expect;
        Step::More
    }

    fn value(&mut self, byte: u8) -> Step {
        match byte {
            b'{' => {
                self.open.push(byte);
                self.go(Expect::KeyOrEnd)
            }
            b'[' => {
                self.open.push(byte);
                self.go(Expect::ValueOrEnd)
            }
            b'"' => self.go(Expect::Text { key: false, escaped: false }),
            b',' | b':' | b']' | b'}' => Step::Wrong("a value"),
            _ => self.go(Expect::Word),
        }
    }

    fn text(&mut self, byte: u8, key: bool, escaped: bool) -> Step {
        match byte {
            b'\n' => Step::Wrong("the end of a string"),
            _ if escaped => self.go(Expect::Text { key, escaped: false }),
            b'\\' => self.go(Expect::Text { key, escaped: true }),
            b'"' if key => self.go(Expect::Colon),
            b'"' if self.open.is_empty() => Step::Last,
            b'"' => self.go(Expect::CommaOrEnd),
            _ => Step::More,
        }
    }

    fn comma_or_end(&mut self, byte: u8) -> Step {
        let in_object = self.open.last() == Some(&b'{');
        match byte {
            b',' => self.go(if in_object { Expect::Key } else { Expect::Value }),
            b'}' if in_object => self.close(byte),
            b']' if !in_object => self.close(byte),
            _ if in_object => Step::Wrong("a comma or the end of an object"),
            _ => Step::Wrong("a comma or the end of an array"),
        }
    }

    fn close(&mut self, byte: u8) -> Step {
        debug_assert_eq!(self.open.last(), Some(&opener(byte)));
        self.open.pop();
        if self.open.is_empty() { Step::Last } else { self.go(Expect::CommaOrEnd) }
    }

    /// Whether the value is whole when the input ends here.
    fn may_end(&self) -> bool {
        self.expect == Expect::Word && self.open.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// Gives a few bytes at a time, so that every place is once the end of a chunk.
    struct Drops<'a>(&'a [u8]);

    impl Read for Drops<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = self.0.len().min(3).min(buffer.len());
            buffer[..length].copy_from_slice(&self.0[..length]);
            self.0 = &self.0[length..];
            Ok(length)
        }
    }

    fn items(text: &str) -> Vec<RawItem> {
        let has_list = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains("\"messages\"");
        Items::new(Drops(text.as_bytes()), has_list).map(|item| item.expect("reads")).collect()
    }

    /// Each item as its text, or `!` for one that is none.
    fn texts(text: &str) -> Vec<String> {
        let text_of =
            |item: RawItem| item.content.map_or("!".to_owned(), |bytes| String::from_utf8(bytes).expect("text"));
        items(text).into_iter().map(text_of).collect()
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            "[\\[\\]{}\",:\\\\ \\n]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::hash_map("[a-z\"\\\\{]{0,4}", inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn an_array_is_split_as_serde_splits_it(array in prop::collection::vec(any_json(), 0..6), pretty: bool) {
            let text = if pretty { serde_json::to_string_pretty(&array) } else { serde_json::to_string(&array) };
            let split: Vec<Value> =
                texts(&text.expect("json")).iter().map(|text| serde_json::from_str(text).expect("json")).collect();
            prop_assert_eq!(split, array);
        }

        #[test]
        fn objects_that_follow_one_another_are_split(array in prop::collection::vec(any_json(), 1..6), pretty: bool) {
            let objects: Vec<Value> = array.into_iter().map(|value| serde_json::json!({ "a": value })).collect();
            let write = |value| if pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
            let text: String = objects.iter().map(|value| write(value).expect("json") + "\n").collect();
            let split: Vec<Value> = texts(&text).iter().map(|text| serde_json::from_str(text).expect("json")).collect();
            prop_assert_eq!(split, objects);
        }

        #[test]
        fn whatever_comes_the_scanner_ends(text in "[\\[\\]{}\",:a1\\\\ \\n]{0,200}") {
            items(&text);
        }
    }

    #[test]
    fn nothing_has_no_items() {
        for text in ["", " \n", "[]", "[ ]\n", "\u{FEFF}[]"] {
            assert_eq!(texts(text), Vec::<String>::new(), "{text:?}");
        }
    }

    #[test]
    fn a_broken_item_of_an_array_does_not_take_the_next_with_it() {
        let good = r#"{"messages":[{"role":"user"}]}"#;
        for bad in [
            r#"{"messages":[}"#,
            r#"{"messages":[{"role":"user"}]"#,
            r#"{"messages":[{"role":"user,"content":"x"}]}"#,
            r#"{"messages":[{"role":"user"}}"#,
            "{\"messages\":\"\n\"}",
            r#"{"messages"}"#,
            r#"{"messages":[{"content":"unclosed}]}"#,
        ] {
            let text = format!("[{good},{bad},{good}, {good}]");
            assert_eq!(texts(&text), [good, "!", good, good], "{bad}");
        }
    }

    #[test]
    fn an_item_with_a_wrong_word_is_left_to_the_parser() {
        assert_eq!(texts(r#"[{"a":nope},{"a":1.2.3}]"#), [r#"{"a":nope}"#, r#"{"a":1.2.3}"#]);
    }

    #[test]
    fn a_bad_line_does_not_take_the_next_with_it() {
        let good = r#"{"messages":[]}"#;
        for bad in [r#"{"messages":["#, r#"{"messages":[{"role":"user"},"#, r#"{"messages":"#, r#"{"messages":"x"#] {
            let text = format!("{good}\n{bad}\n{good}\n{good}\n");
            assert_eq!(texts(&text), [good, "!", good, good], "{bad}");
            let text = format!("{bad}\n{good}\n");
            assert_eq!(texts(&text), ["!", good], "{bad} first");
        }
        assert_eq!(texts(&format!("{good}\nnonsense, here\n{good}")), [good, "nonsense, here", good]);
    }

    #[test]
    fn a_file_that_is_cut_off_says_so() {
        let found = items(r#"[{"messages":[]},{"messages":["#);
        assert_eq!(found.len(), 2, "{found:?}");
        let reason = found[1].content.clone().expect_err("a problem");
        assert!(reason.contains("the file ends inside it"), "{reason}");
        assert_eq!(texts(r#"[{"a":1}"#), [r#"{"a":1}"#, "!"]);
        assert_eq!(texts(r#"[{"a":1}] x"#), [r#"{"a":1}"#, "!"]);
    }

    #[test]
    fn places_are_told() {
        let found = items("{\"a\":1}\n\n{\"a\":2}\n");
        let places: Vec<_> = found.iter().map(|item| (item.number, item.line, item.offset)).collect();
        assert_eq!(places, [(1, 1, 0), (2, 3, 9)]);
    }
}

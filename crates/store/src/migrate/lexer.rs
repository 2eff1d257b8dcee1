//! The lexical shape of SQL, as far as a migrator needs it: where quotes, comments and words begin and end.
//!
//! It knows what each engine knows: doubled quotes on both; `E''` strings, dollar quoting and nested comments
//! on PostgreSQL; backticks and square brackets on SQLite. The tokens of a text, put together, are the text.

use crate::engine::Dialect;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// White space or a comment.
    Blank,
    /// A keyword, a name or a number, not quoted.
    Word,
    /// A string or a name in quotes of any kind.
    Quoted,
    /// Any other character.
    Symbol,
}

/// A piece of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind,
    /// Byte offset of its first character.
    pub(super) at: usize,
    pub(super) text: &'a str,
}

impl Token<'_> {
    /// Whether this is the keyword `word`, in any case.
    pub(super) fn is_word(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(word)
    }

    pub(super) fn is_symbol(&self, symbol: &str) -> bool {
        self.kind == Kind::Symbol && self.text == symbol
    }
}

/// A quote or a comment that is never closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unclosed {
    /// Byte offset of where it opens.
    pub(super) at: usize,
    /// What is open.
    pub(super) what: &'static str,
}

/// The tokens of `text`.
///
/// # Errors
/// [`Unclosed`] when a quote or a comment runs past the end.
pub(super) fn tokens(text: &str, dialect: Dialect) -> Result<Vec<Token<'_>>, Unclosed> {
    let mut lexer = Lexer { text, bytes: text.as_bytes(), at: 0, dialect };
    let mut found = Vec::new();
    while lexer.at < text.len() {
        let at = lexer.at;
        let kind = lexer.next()?;
        found.push(Token { kind, at, text: &text[at..lexer.at] });
    }
    Ok(found)
}

struct Lexer<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    dialect: Dialect,
}

impl Lexer<'_> {
    /// Moves behind the next token; its kind.
    fn next(&mut self) -> Result<Kind, Unclosed> {
        let postgres = self.dialect.pick(true, false);
        let rest = &self.bytes[self.at..];
        match rest[0] {
            byte if byte.is_ascii_whitespace() => {
                let length = rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
                self.at += length;
                Ok(Kind::Blank)
            }
            b'-' if rest.starts_with(b"--") => {
                self.at = self.find(self.at, "\n").map_or(self.text.len(), |end| end + 1);
                Ok(Kind::Blank)
            }
            b'/' if rest.starts_with(b"/*") => self.block_comment(),
            quote @ (b'\'' | b'"') => self.quoted(1, quote, "a quote"),
            b'`' if !postgres => self.quoted(1, b'`', "a quote"),
            b'[' if !postgres => self.bracketed(),
            b'e' | b'E' if postgres && rest.get(1) == Some(&b'\'') => self.escape_string(),
            b'$' if postgres => self.dollar(),
            byte if is_word_byte(byte) => {
                let length = rest.iter().take_while(|byte| is_word_byte(**byte) || **byte == b'$').count();
                self.at += length;
                Ok(Kind::Word)
            }
            _ => {
                self.at += 1;
                Ok(Kind::Symbol)
            }
        }
    }

    fn find(&self, from: usize, needle: &str) -> Option<usize> {
        self.text.get(from..)?.find(needle).map(|found| from + found)
    }

    /// A quote that opens `skip` bytes long and ends at `quote`, where a doubled one stands for itself.
    fn quoted(&mut self, skip: usize, quote: u8, what: &'static str) -> Result<Kind, Unclosed> {
        let mut at = self.at + skip;
        loop {
            match self.bytes.get(at) {
                None => return Err(Unclosed { at: self.at, what }),
                Some(byte) if *byte == quote && self.bytes.get(at + 1) == Some(&quote) => at += 2,
                Some(byte) if *byte == quote => break,
                Some(_) => at += 1,
            }
        }
        self.at = at + 1;
        Ok(Kind::Quoted)
    }

    /// `[name]`, where nothing can be doubled.
    fn bracketed(&mut self) -> Result<Kind, Unclosed> {
        let end = self.find(self.at, "]").ok_or(Unclosed { at: self.at, what: "a square bracket" })?;
        self.at = end + 1;
        Ok(Kind::Quoted)
    }

    /// `E'…'`, where a backslash takes the next character with it. Literals that follow on another line belong
    /// to it and are read the same way.
    fn escape_string(&mut self) -> Result<Kind, Unclosed> {
        let mut at = self.at + 2;
        loop {
            match self.bytes.get(at) {
                None => return Err(Unclosed { at: self.at, what: "a quote" }),
                Some(b'\\') => at += 2,
                Some(b'\'') if self.bytes.get(at + 1) == Some(&b'\'') => at += 2,
                Some(b'\'') => match self.continued_at(at + 1) {
                    Some(next) => at = next,
                    None => break,
                },
                Some(_) => at += 1,
            }
        }
        self.at = at + 1;
        Ok(Kind::Quoted)
    }

    /// Where the content of a literal goes on that continues the one that ended before `at`.
    fn continued_at(&self, at: usize) -> Option<usize> {
        let blanks = self.bytes[at..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let breaks = self.bytes[at..at + blanks].contains(&b'\n');
        (breaks && self.bytes.get(at + blanks) == Some(&b'\'')).then_some(at + blanks + 1)
    }

    /// `$tag$ … $tag$`, or a parameter, or a lone dollar sign.
    fn dollar(&mut self) -> Result<Kind, Unclosed> {
        let tag = self.bytes[self.at + 1..].iter().take_while(|byte| is_word_byte(**byte)).count();
        let open = self.at + 1 + tag;
        let starts_with_digit = self.bytes.get(self.at + 1).is_some_and(u8::is_ascii_digit);
        if starts_with_digit || self.bytes.get(open) != Some(&b'$') {
            self.at = open;
            return Ok(if tag == 0 { Kind::Symbol } else { Kind::Word });
        }
        let delimiter = &self.text[self.at..=open];
        let end = self.find(open + 1, delimiter).ok_or(Unclosed { at: self.at, what: "a dollar quote" })?;
        self.at = end + delimiter.len();
        Ok(Kind::Quoted)
    }

    /// `/* … */`; PostgreSQL nests them, SQLite does not.
    fn block_comment(&mut self) -> Result<Kind, Unclosed> {
        let nests = self.dialect.pick(true, false);
        let (mut at, mut depth) = (self.at + 2, 1_usize);
        while depth > 0 {
            match self.bytes.get(at..at + 2) {
                None => return Err(Unclosed { at: self.at, what: "a comment" }),
                Some(b"*/") => (at, depth) = (at + 2, depth - 1),
                Some(b"/*") if nests => (at, depth) = (at + 2, depth + 1),
                Some(_) => at += 1,
            }
        }
        self.at = at;
        Ok(Kind::Blank)
    }
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// Whether `text` speaks of `name`, quoted or not.
pub(super) fn names(text: &str, name: &str, dialect: Dialect) -> bool {
    tokens(text, dialect).is_ok_and(|tokens| {
        tokens.iter().any(|token| match token.kind {
            Kind::Word => token.text.eq_ignore_ascii_case(name),
            Kind::Quoted => token.text.trim_matches('"') == name,
            _ => false,
        })
    })
}

/// The text without comments, every run of white space as one blank: two texts that mean the same and differ in
/// their layout become equal. A text that is not well-formed is only trimmed.
pub(super) fn normal_form(text: &str, dialect: Dialect) -> String {
    let Ok(tokens) = tokens(text, dialect) else { return text.trim().to_owned() };
    let mut normal = String::with_capacity(text.len());
    let mut blank = false;
    for token in tokens {
        if token.kind == Kind::Blank {
            blank = true;
            continue;
        }
        let tight = normal.is_empty() || normal.ends_with('(') || matches!(token.text, ")" | "," | "(");
        if blank && !tight {
            normal.push(' ');
        }
        normal.push_str(token.text);
        // A comma is always followed by a blank, whatever the author wrote.
        blank = token.is_symbol(",");
    }
    normal
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kinds(text: &str, dialect: Dialect) -> Vec<(Kind, &str)> {
        let tokens = tokens(text, dialect).expect("tokens");
        tokens.iter().filter(|token| token.kind != Kind::Blank).map(|token| (token.kind, token.text)).collect()
    }

    #[test]
    fn an_e_string_reads_backslashes_and_a_plain_one_does_not() {
        assert_eq!(kinds(r"E'it\'s'", Dialect::Postgres), [(Kind::Quoted, r"E'it\'s'")]);
        assert_eq!(kinds(r"'C:\' x", Dialect::Postgres), [(Kind::Quoted, r"'C:\'"), (Kind::Word, "x")]);
        assert_eq!(kinds("E'a'\n 'b\\'' x", Dialect::Postgres).len(), 2);
        assert_eq!(kinds("'a''b'", Dialect::Sqlite).len(), 1);
    }

    #[test]
    fn a_dollar_quote_ends_at_its_own_tag() {
        assert_eq!(kinds("$a$ $b$ ; $b$ $$ $a$", Dialect::Postgres).len(), 1);
        assert_eq!(kinds("$1", Dialect::Postgres), [(Kind::Word, "$1")]);
        assert_eq!(kinds("a$b$c", Dialect::Postgres), [(Kind::Word, "a$b$c")]);
    }

    #[test]
    fn comments_nest_on_postgres_only() {
        assert_eq!(kinds("/* /* */ */ a", Dialect::Postgres), [(Kind::Word, "a")]);
        assert_eq!(kinds("/* /* */ a", Dialect::Sqlite), [(Kind::Word, "a")]);
    }

    #[test]
    fn what_is_never_closed_is_named() {
        for (text, what) in [("a 'b", "a quote"), ("a /* b", "a comment"), ("a $x$ $y$", "a dollar quote")] {
            assert_eq!(tokens(text, Dialect::Postgres), Err(Unclosed { at: 2, what }));
        }
    }

    #[test]
    fn layout_and_comments_do_not_change_the_normal_form() {
        let written = "CREATE TABLE t (\n  a TEXT, -- the first\n  b INTEGER DEFAULT (1)\n) STRICT";
        let stored = "CREATE  TABLE t(a TEXT,b INTEGER DEFAULT(1)) STRICT";
        assert_eq!(normal_form(written, Dialect::Sqlite), normal_form(stored, Dialect::Sqlite));
        assert_ne!(normal_form("SELECT 'a  b'", Dialect::Sqlite), normal_form("SELECT 'a b'", Dialect::Sqlite));
    }

    proptest! {
        #[test]
        fn the_tokens_put_together_are_the_text(text in "[a-z0-9 '\"$;()/*\\-\\[\\]`eE\\\\\n\u{e9}]{0,60}") {
            for dialect in [Dialect::Postgres, Dialect::Sqlite] {
                if let Ok(tokens) = tokens(&text, dialect) {
                    let whole: String = tokens.iter().map(|token| token.text).collect();
                    prop_assert_eq!(&whole, &text);
                }
            }
        }
    }
}

//! From the text of a query to its tree, by recursive descent with bounded depth.

use super::{Bound, Field, Node, Piece, Test, number};
use crate::{
    limits::{QUERY_BYTES_MAX, QUERY_DEPTH_MAX},
    problem::{Mistake, Place, nearest},
};

/// The fields that are written in one way only.
const FIELDS: [&str; 5] = [
    "thingName",
    "thingTypeName",
    "thingGroupNames",
    "connectivity.connected",
    "deviceDefender.violationCount",
];

pub(super) fn parse(text: &str) -> Result<Node, Mistake> {
    let mut parser = Parser { text, at: 0 };
    if text.len() > QUERY_BYTES_MAX {
        let message = format!("the query has more than {QUERY_BYTES_MAX} bytes");
        return Err(parser.mistake(0, message, "make it shorter, or make two groups of it"));
    }
    let node = parser.any_of(0)?;
    parser.skip_space();
    match parser.peek() {
        None => Ok(node),
        Some(')') => Err(parser.mistake(
            parser.at,
            "`)` closes nothing",
            "remove it, or open a parenthesis before it",
        )),
        Some(_) => Err(parser.mistake(
            parser.at,
            "two terms stand side by side",
            "write `AND` or `OR` between them; put a text with spaces into double quotes",
        )),
    }
}

/// A word: a field, an operator or a value without quotes.
struct Word {
    start: usize,
    /// With the escaped characters marked.
    chars: Vec<(char, bool)>,
}

impl Word {
    fn text(&self) -> String {
        self.chars.iter().map(|(c, _)| c).collect()
    }

    fn is(&self, text: &str) -> bool {
        self.chars.iter().all(|(_, escaped)| !escaped) && self.text() == text
    }
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
}

impl Parser<'_> {
    fn mistake(&self, at: usize, message: impl Into<String>, remedy: impl Into<String>) -> Mistake {
        Mistake {
            place: Some(Place::of_offset(self.text, at)),
            message: message.into(),
            remedy: remedy.into(),
        }
    }

    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        Some(next)
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.next();
        }
    }

    /// Takes `text`, which is one of the signs.
    fn takes(&mut self, text: &str) -> bool {
        self.skip_space();
        let is_there = self.rest().starts_with(text);
        if is_there {
            self.at += text.len();
        }
        is_there
    }

    /// Takes `word` where it stands alone.
    fn takes_word(&mut self, word: &str) -> bool {
        self.skip_space();
        let behind = self.rest().strip_prefix(word);
        let stands_alone = behind.is_some_and(|behind| {
            let next = behind.chars().next();
            next.is_none_or(|c| c.is_whitespace() || matches!(c, '(' | ')'))
        });
        if stands_alone {
            self.at += word.len();
        }
        stands_alone
    }

    fn any_of(&mut self, depth: usize) -> Result<Node, Mistake> {
        let mut nodes = vec![self.all_of(depth)?];
        while self.takes_word("OR") || self.takes("||") {
            nodes.push(self.all_of(depth)?);
        }
        Ok(one_or(nodes, Node::Or))
    }

    fn all_of(&mut self, depth: usize) -> Result<Node, Mistake> {
        let mut nodes = vec![self.one(depth)?];
        while self.takes_word("AND") || self.takes("&&") {
            nodes.push(self.one(depth)?);
        }
        Ok(one_or(nodes, Node::And))
    }

    fn one(&mut self, depth: usize) -> Result<Node, Mistake> {
        self.skip_space();
        let start = self.at;
        if depth > QUERY_DEPTH_MAX {
            let message = format!("the query is nested more than {QUERY_DEPTH_MAX} levels deep");
            return Err(self.mistake(start, message, "write it with fewer parentheses"));
        }
        if self.takes_word("NOT") || self.takes("!") || self.takes("-") {
            return Ok(Node::Not(Box::new(self.one(depth + 1)?)));
        }
        if !self.takes("(") {
            return self.term();
        }
        let node = self.any_of(depth + 1)?;
        if self.takes(")") {
            return Ok(node);
        }
        match self.peek() {
            None => Err(self.mistake(start, "`(` is not closed", "write `)` where it ends")),
            Some(_) => Err(self.mistake(
                self.at,
                "two terms stand side by side",
                "write `AND` or `OR` between them; put a text with spaces into double quotes",
            )),
        }
    }

    fn term(&mut self) -> Result<Node, Mistake> {
        let word = self.word(&[':', '>', '<', '='])?;
        if word.chars.is_empty() {
            let remedy = "write a term, such as `thingName:sensor*`";
            return Err(match self.peek() {
                None => self.mistake(word.start, "the query ends where a term is missing", remedy),
                Some(c) => {
                    let message = format!("`{c}` stands where a term should");
                    self.mistake(word.start, message, remedy)
                }
            });
        }
        let comparison = ["AND", "OR", "NOT", "TO"];
        if let Some(operator) = comparison.iter().find(|operator| word.is(operator)) {
            let message = format!("`{operator}` stands where a term should");
            let remedy = "write a term, such as `thingName:sensor*`, on both sides";
            return Err(self.mistake(word.start, message, remedy));
        }
        let field = self.field(&word)?;
        self.skip_space();
        let sign_at = self.at;
        let colon = self.takes(":");
        let sign = [">=", "<=", ">", "<"]
            .into_iter()
            .find(|sign| self.takes(sign));
        if sign.is_none() && !colon {
            let message = format!("`{}` is compared with nothing", word.text());
            let remedy = "write a field, `:` and a value, such as `thingName:sensor*`";
            return Err(self.mistake(sign_at, message, remedy));
        }
        let test = match sign {
            Some(sign) => self.comparison(sign)?,
            None => self.value(&field)?,
        };
        self.must_fit(&field, &test, sign_at)?;
        Ok(Node::Term(field, test))
    }

    fn field(&self, word: &Word) -> Result<Field, Mistake> {
        let name = word.text();
        let field = match name.as_str() {
            "thingName" => Some(Field::ThingName),
            "thingTypeName" => Some(Field::ThingTypeName),
            "thingGroupNames" => Some(Field::ThingGroupNames),
            "connectivity.connected" => Some(Field::Connected),
            "deviceDefender.violationCount" => Some(Field::ViolationCount),
            other => other
                .strip_prefix("attributes.")
                .filter(|attribute| !attribute.is_empty())
                .map(|attribute| Field::Attribute(attribute.to_owned()))
                .or_else(|| violation(other)),
        };
        field.ok_or_else(|| {
            let message = format!("`{name}` is no field of a thing");
            let remedy = match nearest(&name, FIELDS) {
                Some(near) => format!("write `{near}`"),
                None => format!(
                    "use {}, `attributes.NAME` or `deviceDefender.PROFILE.BEHAVIOR.inViolation`",
                    FIELDS.map(|field| format!("`{field}`")).join(", ")
                ),
            };
            self.mistake(word.start, message, remedy)
        })
    }

    fn comparison(&mut self, sign: &str) -> Result<Test, Mistake> {
        let value = self.number()?;
        Ok(match sign {
            ">" => Test::Within(Bound::Excluding(value), Bound::Open),
            ">=" => Test::Within(Bound::Including(value), Bound::Open),
            "<" => Test::Within(Bound::Open, Bound::Excluding(value)),
            _ => Test::Within(Bound::Open, Bound::Including(value)),
        })
    }

    fn number(&mut self) -> Result<f64, Mistake> {
        self.skip_space();
        let word = self.word(&['[', ']', '{', '}', '"'])?;
        let text = word.text();
        number(&text).ok_or_else(|| {
            let message = format!("`{text}` is no number");
            self.mistake(word.start, message, "write a number, such as 5 or -0.5")
        })
    }

    fn value(&mut self, field: &Field) -> Result<Test, Mistake> {
        self.skip_space();
        let start = self.at;
        match self.peek() {
            Some('"') => Ok(Test::Like(self.quoted()?)),
            Some('[' | '{') => self.range(),
            _ => {
                let word = self.word(&['[', ']', '{', '}', '"'])?;
                if word.chars.is_empty() {
                    let remedy = "write a value behind it; an empty one as `\"\"`";
                    return Err(self.mistake(start, "a value is missing", remedy));
                }
                Ok(match field {
                    Field::Connected | Field::InViolation(_) if word.is("true") => Test::Is(true),
                    Field::Connected | Field::InViolation(_) if word.is("false") => Test::Is(false),
                    Field::ViolationCount => match number(&word.text()) {
                        Some(n) => Test::Within(Bound::Including(n), Bound::Including(n)),
                        None => Test::Like(Vec::new()),
                    },
                    _ => Test::Like(word.chars.iter().map(|piece| piece_of(*piece)).collect()),
                })
            }
        }
    }

    /// `[1 TO 5]`, `{1 TO 5}`, and with `*` for no bound.
    fn range(&mut self) -> Result<Test, Mistake> {
        let open = self.next();
        let low = self.bound(open == Some('['))?;
        if !self.takes_word("TO") {
            let remedy = "write a range as `[1 TO 5]`, or `{1 TO 5}` without its ends";
            return Err(self.mistake(self.at, "`TO` is missing in the range", remedy));
        }
        let at = self.at;
        self.skip_space();
        let from = self.at;
        // Whether the end counts stands behind it.
        let high = self.bound(true)?;
        let including = self.takes("]");
        if !including && !self.takes("}") {
            return Err(self.mistake(at, "the range is not closed", "write `]` or `}` behind it"));
        }
        let high = match high {
            Bound::Including(value) if !including => Bound::Excluding(value),
            other => other,
        };
        if let (
            Bound::Including(l) | Bound::Excluding(l),
            Bound::Including(h) | Bound::Excluding(h),
        ) = (low, high)
            && l > h
        {
            return Err(self.mistake(from, "the range ends before it starts", "swap its ends"));
        }
        Ok(Test::Within(low, high))
    }

    fn bound(&mut self, including: bool) -> Result<Bound, Mistake> {
        if self.takes_word("*") || self.rest().trim_start().starts_with('*') && self.takes("*") {
            return Ok(Bound::Open);
        }
        let value = self.number()?;
        Ok(if including {
            Bound::Including(value)
        } else {
            Bound::Excluding(value)
        })
    }

    fn quoted(&mut self) -> Result<Vec<Piece>, Mistake> {
        let start = self.at;
        self.next();
        let mut pieces = Vec::new();
        loop {
            match self.next() {
                Some('"') => return Ok(pieces),
                Some('\\') if self.peek().is_some() => pieces.extend(self.next().map(Piece::Char)),
                Some(c) => pieces.push(Piece::Char(c)),
                None => {
                    let remedy = "write `\"` where the text ends";
                    return Err(self.mistake(start, "the text has no end", remedy));
                }
            }
        }
    }

    /// Up to white space, a parenthesis or one of `ends`.
    fn word(&mut self, ends: &[char]) -> Result<Word, Mistake> {
        self.skip_space();
        let start = self.at;
        let mut chars = Vec::new();
        while let Some(c) = self.peek() {
            if c.is_whitespace() || matches!(c, '(' | ')') || ends.contains(&c) {
                break;
            }
            let at = self.at;
            self.next();
            if c == '\\' {
                let Some(escaped) = self.next() else {
                    let remedy = "write `\\\\` for the character itself";
                    return Err(self.mistake(at, "nothing stands behind `\\`", remedy));
                };
                chars.push((escaped, true));
            } else {
                chars.push((c, false));
            }
        }
        Ok(Word { start, chars })
    }

    fn must_fit(&self, field: &Field, test: &Test, at: usize) -> Result<(), Mistake> {
        let (message, remedy) = match (field, test) {
            (Field::Connected | Field::InViolation(_), Test::Is(_))
            | (Field::ViolationCount | Field::Attribute(_), Test::Within(..))
            | (
                Field::ThingName
                | Field::ThingTypeName
                | Field::ThingGroupNames
                | Field::Attribute(_),
                Test::Like(_),
            ) => return Ok(()),
            (Field::Connected | Field::InViolation(_), _) => {
                ("the field is true or false", "write `:true` or `:false`")
            }
            (Field::ViolationCount, _) => (
                "the field is a number",
                "compare it with one, such as `deviceDefender.violationCount > 0`",
            ),
            (_, _) => (
                "the field is a text, not a number",
                "compare it with a text, such as `thingName:sensor*`",
            ),
        };
        Err(self.mistake(at, message, remedy))
    }
}

/// `deviceDefender.PROFILE.BEHAVIOR.inViolation`.
fn violation(name: &str) -> Option<Field> {
    let (profile, behavior) = name
        .strip_prefix("deviceDefender.")?
        .strip_suffix(".inViolation")?
        .split_once('.')?;
    let is_one = |name: &str| !name.is_empty() && !name.contains('.');
    (is_one(profile) && is_one(behavior))
        .then(|| Field::InViolation((profile.to_owned(), behavior.to_owned())))
}

fn piece_of(char_in_word: (char, bool)) -> Piece {
    match char_in_word {
        ('*', false) => Piece::AnyRun,
        ('?', false) => Piece::AnyOne,
        (c, _) => Piece::Char(c),
    }
}

fn one_or(mut nodes: Vec<Node>, many: fn(Vec<Node>) -> Node) -> Node {
    match nodes.pop() {
        Some(only) if nodes.is_empty() => only,
        last => {
            nodes.extend(last);
            many(nodes)
        }
    }
}

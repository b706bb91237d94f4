//! Wildcards: `*` is any run of characters, `?` exactly one, both of them across `/`; anchored at
//! both ends (specification A.2).
//!
//! Nothing is allocated: a resource that comes in two parts is put together on the stack, if a pattern
//! needs that, and the values of variables are looked up when a pattern reaches them. They are
//! literals, never scanned for wildcards or variables again (a client that calls itself `*` gains
//! nothing).

use super::{Fault, variable::Variable};

/// A part of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Literal(Box<str>),
    /// `*`
    Any,
    /// `?`
    One,
    /// `${…}`
    Variable(Variable),
}

/// What a variable without a value does to a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unresolved {
    /// The pattern does not match.
    Never,
    /// The variable counts as `*`.
    Anything,
}

/// Whether `a` is `A`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Case {
    Sensitive,
    /// Character by character, each in lower case.
    Ignored,
}

/// Which characters of a pattern's text are wildcards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wildcards {
    Honoured,
    /// `*` and `?` are characters as any other.
    Literal,
}

/// Two texts that are read as one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text<'t> {
    head: &'t str,
    tail: &'t str,
}

/// Texts up to here are put together on the stack; topics are shorter.
const JOINED_BYTES_MAX: usize = 512;

impl<'t> Text<'t> {
    pub(super) const fn of(text: &'t str) -> Self {
        Self::joined("", text)
    }

    pub(super) const fn joined(head: &'t str, tail: &'t str) -> Self {
        Self { head, tail }
    }

    fn with<T>(self, read: impl FnOnce(&str) -> T) -> T {
        if self.head.is_empty() {
            return read(self.tail);
        }
        let mut buffer = [0; JOINED_BYTES_MAX];
        let length = self.head.len() + self.tail.len();
        let joined = buffer.get_mut(..length).and_then(|buffer| {
            let (head, tail) = buffer.split_at_mut(self.head.len());
            head.copy_from_slice(self.head.as_bytes());
            tail.copy_from_slice(self.tail.as_bytes());
            str::from_utf8(buffer).ok()
        });
        match joined {
            Some(joined) => read(joined),
            None => read(&[self.head, self.tail].concat()),
        }
    }
}

/// Whether `pattern` takes the whole of `text`.
pub(super) fn matches<'v>(
    pattern: &[Token],
    text: Text<'_>,
    value_of: &impl Fn(&Variable) -> Option<&'v str>,
    unresolved: Unresolved,
    case: Case,
) -> bool {
    // As everything below a bare resource, which needs no look at the text.
    if let [Token::Any] = pattern {
        return true;
    }
    text.with(|text| matches_text(pattern, text, value_of, unresolved, case))
}

fn matches_text<'v>(
    pattern: &[Token],
    text: &str,
    value_of: &impl Fn(&Variable) -> Option<&'v str>,
    unresolved: Unresolved,
    case: Case,
) -> bool {
    let (mut pattern, mut text) = (pattern, text);
    // Most patterns fail at one of their ends. What is left begins and ends with a wildcard.
    if case == Case::Sensitive {
        while let [Token::Literal(literal), rest @ ..] = pattern {
            match text.strip_prefix(&**literal) {
                Some(after) => (pattern, text) = (rest, after),
                None => return false,
            }
        }
        while let [rest @ .., Token::Literal(literal)] = pattern {
            match text.strip_suffix(&**literal) {
                Some(before) => (pattern, text) = (rest, before),
                None => return false,
            }
        }
    }
    match pattern {
        [] => text.is_empty(),
        [Token::Any] => true,
        _ => matches_middle(pattern, text, value_of, unresolved, case),
    }
}

/// A `*` that was passed.
#[derive(Clone, Copy)]
struct Star<'p, 't> {
    /// The literal or value right behind it, for which it looks.
    needle: Option<&'p str>,
    /// The token behind that.
    resume: usize,
    /// Where the needle was found, or the `*` ends.
    at: &'t str,
}

/// Going back to the last `*` alone is enough, so the time is at most pattern × text: a policy cannot
/// be made slow by a topic.
fn matches_middle<'v>(
    pattern: &[Token],
    text: &str,
    value_of: &impl Fn(&Variable) -> Option<&'v str>,
    unresolved: Unresolved,
    case: Case,
) -> bool {
    let value = |variable: &Variable| match (value_of(variable), unresolved) {
        (Some(value), _) => Ok(Some(value)),
        (None, Unresolved::Anything) => Ok(None),
        (None, Unresolved::Never) => Err(NeverMatches),
    };
    let (mut next, mut rest) = (0, text);
    let mut star: Option<Star<'_, '_>> = None;
    loop {
        let literal = match pattern.get(next) {
            Some(Token::Literal(literal)) => Some(&**literal),
            Some(Token::Variable(variable)) => match value(variable) {
                Ok(value) => value,
                Err(NeverMatches) => return false,
            },
            _ => None,
        };
        let step = match (pattern.get(next), literal) {
            (_, Some(literal)) => strip(rest, literal, case),
            (Some(Token::One), _) => without_first_char(rest),
            (None, _) if rest.is_empty() => return true,
            (None, _) => None,
            // A `*` at the end takes whatever is left.
            _ if next + 1 == pattern.len() => return true,
            // A `*`, or a variable that counts as one.
            _ => {
                let needle = match pattern.get(next + 1) {
                    Some(Token::Literal(literal)) => Some(&**literal),
                    Some(Token::Variable(variable)) => match value(variable) {
                        Ok(value) => value,
                        Err(NeverMatches) => return false,
                    },
                    _ => None,
                };
                next += 1 + usize::from(needle.is_some());
                let passed = star.insert(Star {
                    needle,
                    resume: next,
                    at: rest,
                });
                match passed.look(case) {
                    Some(after) => rest = after,
                    None => return false,
                }
                continue;
            }
        };
        if let Some(after) = step {
            (next, rest) = (next + 1, after);
            continue;
        }
        // Let the last `*` take one character more, or as many as it must.
        let longer = star.as_mut().and_then(|star| {
            star.at = without_first_char(star.at)?;
            next = star.resume;
            star.look(case)
        });
        match longer {
            Some(after) => rest = after,
            None => return false,
        }
    }
}

/// A variable without a value is in the way.
struct NeverMatches;

impl<'t> Star<'_, 't> {
    /// Takes as little as it can; what is behind the needle.
    #[inline]
    fn look(&mut self, case: Case) -> Option<&'t str> {
        let Some(needle) = self.needle else {
            return Some(self.at);
        };
        if case == Case::Ignored {
            loop {
                if let Some(after) = strip(self.at, needle, case) {
                    return Some(after);
                }
                self.at = without_first_char(self.at)?;
            }
        }
        self.at = self
            .at
            .get(position(self.at.as_bytes(), needle.as_bytes())?..)?;
        self.at.get(needle.len()..)
    }
}

/// Where `needle` stands first. Both are short, and mostly it stands nowhere.
#[inline]
fn position(text: &[u8], needle: &[u8]) -> Option<usize> {
    let (first, others) = needle.split_first()?;
    let last = text.len().checked_sub(needle.len())?;
    let mut from = 0;
    loop {
        let at = from
            + text
                .get(from..=last)?
                .iter()
                .position(|byte| byte == first)?;
        if others.is_empty() || text.get(at + 1..at + needle.len()) == Some(others) {
            return Some(at);
        }
        from = at + 1;
    }
}

fn strip<'t>(text: &'t str, prefix: &str, case: Case) -> Option<&'t str> {
    if case == Case::Sensitive {
        return text.strip_prefix(prefix);
    }
    let mut rest = text.chars();
    for expected in prefix.chars() {
        let c = rest.next()?;
        if c != expected && !c.to_lowercase().eq(expected.to_lowercase()) {
            return None;
        }
    }
    Some(rest.as_str())
}

fn without_first_char(text: &str) -> Option<&str> {
    let mut chars = text.chars();
    chars.next().map(|_| chars.as_str())
}

/// Whether `pattern`, which has no variable, takes the whole of `text`.
pub(super) fn matches_plain(pattern: &[Token], text: Text<'_>) -> bool {
    matches(pattern, text, &|_| None, Unresolved::Never, Case::Sensitive)
}

/// Whether `pattern`, in which only `*` and `?` are special, takes the whole of `text`.
pub(super) fn wildcard_match(pattern: &str, text: &str) -> bool {
    matches_plain(&wildcards(pattern), Text::of(text))
}

/// The tokens of a text in which only `*` and `?` are special.
pub(super) fn wildcards(text: &str) -> Vec<Token> {
    let mut tokens = Tokens::default();
    for c in text.chars() {
        match c {
            '*' => tokens.push(Token::Any),
            '?' => tokens.push(Token::One),
            c => tokens.literal.push(c),
        }
    }
    tokens.finish()
}

/// The tokens of a text with variables and the escapes `${*}`, `${?}`, `${$}`; the error is message
/// and remedy.
pub(super) fn tokenize(text: &str, special: Wildcards) -> Result<Vec<Token>, Fault> {
    let mut tokens = Tokens::default();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let mut used = c.len_utf8();
        match c {
            '*' if special == Wildcards::Honoured => tokens.push(Token::Any),
            '?' if special == Wildcards::Honoured => tokens.push(Token::One),
            '$' if rest.starts_with("${") => {
                let Some(end) = rest.find('}') else {
                    return Err((
                        format!("`{rest}` is not closed"),
                        "write `${NAME}`, or `${$}` for a dollar sign".to_owned(),
                    ));
                };
                used = end + 1;
                match rest.get(2..end).unwrap_or_default() {
                    escaped @ ("*" | "?" | "$") => tokens.literal.push_str(escaped),
                    name => tokens.push(Token::Variable(Variable::parse(name)?)),
                }
            }
            c => tokens.literal.push(c),
        }
        rest = rest.get(used..).unwrap_or_default();
    }
    Ok(tokens.finish())
}

#[derive(Default)]
struct Tokens {
    done: Vec<Token>,
    literal: String,
}

impl Tokens {
    fn push(&mut self, token: Token) {
        self.end_literal();
        // `**` is `*`.
        if token != Token::Any || self.done.last() != Some(&Token::Any) {
            self.done.push(token);
        }
    }

    fn end_literal(&mut self) {
        if !self.literal.is_empty() {
            let literal = std::mem::take(&mut self.literal);
            self.done.push(Token::Literal(literal.into()));
        }
    }

    fn finish(mut self) -> Vec<Token> {
        self.end_literal();
        self.done
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::*;

    /// The definition, exponential and obviously right.
    fn naive(pattern: &[char], text: &[char]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some(('*', rest)), _) => (0..=text.len()).any(|n| naive(rest, &text[n..])),
            (Some(('?', rest)), Some((_, text))) => naive(rest, text),
            (Some((c, rest)), Some((d, text))) => c == d && naive(rest, text),
            _ => false,
        }
    }

    proptest! {
        /// Specification A.2.
        #[test]
        fn wildcards_match_like_their_definition(
            pattern in "[abé/*?]{0,8}",
            head in "[abé/]{0,4}",
            tail in "[abé/]{0,6}",
        ) {
            let p: Vec<char> = pattern.chars().collect();
            let t: Vec<char> = head.chars().chain(tail.chars()).collect();
            let expected = naive(&p, &t);
            let tokens = wildcards(&pattern);
            prop_assert_eq!(matches_plain(&tokens, Text::joined(&head, &tail)), expected);
            prop_assert_eq!(wildcard_match(&pattern, &format!("{head}{tail}")), expected);
        }

        #[test]
        fn case_is_ignored_character_by_character(text in "[aAbBéÉßİ]{0,6}") {
            let tokens = wildcards(&text.to_uppercase().replace("SS", "ß"));
            let with = |case| matches(&tokens, Text::of(&text), &|_| None, Unresolved::Never, case);
            prop_assert!(with(Case::Ignored));
            prop_assert_eq!(with(Case::Sensitive), text == text.to_uppercase().replace("SS", "ß"));
        }
    }

    #[test]
    fn a_long_text_and_many_stars_take_little_time() {
        let pattern = wildcards(&"*a".repeat(500));
        let text = "b".repeat(100_000);
        assert!(!matches_plain(&pattern, Text::of(&text)));
    }
}

//! Wildcards: `*` is any run of characters, `?` exactly one, both of them across `/`; anchored at
//! both ends (specification A.2).
//!
//! Nothing is allocated: a resource is matched as the two parts it comes in, and the values of
//! variables are looked up when a pattern reaches them. They are literals, never scanned for
//! wildcards or variables again (a client that calls itself `*` gains nothing).

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

impl<'t> Text<'t> {
    pub(super) const fn of(text: &'t str) -> Self {
        Self::joined("", text)
    }

    pub(super) const fn joined(head: &'t str, tail: &'t str) -> Self {
        Self { head, tail }
    }

    const fn is_empty(self) -> bool {
        self.head.is_empty() && self.tail.is_empty()
    }

    fn without_first_char(self) -> Option<(char, Self)> {
        let mut head = self.head.chars();
        if let Some(c) = head.next() {
            return Some((c, Self::joined(head.as_str(), self.tail)));
        }
        let mut tail = self.tail.chars();
        tail.next().map(|c| (c, Self::of(tail.as_str())))
    }

    fn strip(self, prefix: &str, case: Case) -> Option<Self> {
        if case == Case::Ignored {
            return self.strip_folded(prefix);
        }
        if self.head.is_empty() {
            return self.tail.strip_prefix(prefix).map(Self::of);
        }
        match prefix.strip_prefix(self.head) {
            Some(rest) => self.tail.strip_prefix(rest).map(Self::of),
            None => {
                let head = self.head.strip_prefix(prefix)?;
                Some(Self::joined(head, self.tail))
            }
        }
    }

    fn strip_end(self, suffix: &str) -> Option<Self> {
        if let Some(tail) = self.tail.strip_suffix(suffix) {
            return Some(Self::joined(self.head, tail));
        }
        let head = self.head.strip_suffix(suffix.strip_suffix(self.tail)?)?;
        Some(Self::of(head))
    }

    /// The first place at which `needle` stands: the text from there on, and the text after it.
    ///
    /// Inlined, as is what calls it: texts then stay in registers, which is a third of the time.
    #[inline(always)]
    fn find(self, needle: &str, case: Case) -> Option<(Self, Self)> {
        let mut from = self;
        while case == Case::Ignored || !from.head.is_empty() {
            if let Some(after) = from.strip(needle, case) {
                return Some((from, after));
            }
            (_, from) = from.without_first_char()?;
        }
        let (first, others) = needle.as_bytes().split_first()?;
        let stands = |at: &[u8]| {
            at.split_first()
                .is_some_and(|(a, b)| a == first && b == others)
        };
        let mut places = from.tail.as_bytes().windows(needle.len());
        let at = places.position(stands)?;
        let after = from.tail.get(at + needle.len()..)?;
        Some((Self::of(from.tail.get(at..)?), Self::of(after)))
    }

    fn strip_folded(self, prefix: &str) -> Option<Self> {
        let mut rest = self;
        for expected in prefix.chars() {
            let (c, after) = rest.without_first_char()?;
            if c != expected && !c.to_lowercase().eq(expected.to_lowercase()) {
                return None;
            }
            rest = after;
        }
        Some(rest)
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
    let (mut pattern, mut text) = (pattern, text);
    // Most patterns fail at one of their ends. What is left begins and ends with a wildcard.
    if case == Case::Sensitive {
        while let [Token::Literal(literal), rest @ ..] = pattern {
            match text.strip(literal, case) {
                Some(after) => (pattern, text) = (rest, after),
                None => return false,
            }
        }
        while let [rest @ .., Token::Literal(literal)] = pattern {
            match text.strip_end(literal) {
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
    at: Text<'t>,
}

/// Going back to the last `*` alone is enough, so the time is at most pattern × text: a policy cannot
/// be made slow by a topic.
fn matches_middle<'v>(
    pattern: &[Token],
    text: Text<'_>,
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
            (_, Some(literal)) => rest.strip(literal, case),
            (Some(Token::One), _) => rest.without_first_char().map(|(_, rest)| rest),
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
                let passed = Star {
                    needle,
                    resume: next + 1 + usize::from(needle.is_some()),
                    at: rest,
                };
                let Some((passed, after)) = passed.look(case) else {
                    return false;
                };
                star = Some(passed);
                (next, rest) = (passed.resume, after);
                continue;
            }
        };
        if let Some(after) = step {
            (next, rest) = (next + 1, after);
            continue;
        }
        // Let the last `*` take one character more, or as many as it must.
        let longer = star.and_then(|mut star| {
            (_, star.at) = star.at.without_first_char()?;
            star.look(case)
        });
        let Some((longer, after)) = longer else {
            return false;
        };
        star = Some(longer);
        (next, rest) = (longer.resume, after);
    }
}

/// A variable without a value is in the way.
struct NeverMatches;

impl<'t> Star<'_, 't> {
    /// Takes as little as it can, and says what is behind the needle.
    #[inline(always)]
    fn look(mut self, case: Case) -> Option<(Self, Text<'t>)> {
        let after;
        match self.needle {
            Some(needle) => (self.at, after) = self.at.find(needle, case)?,
            None => after = self.at,
        }
        Some((self, after))
    }
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

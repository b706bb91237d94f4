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

/// Whether `pattern` takes the whole of `text`. Going back to the last `*` alone is enough, so the
/// time is at most pattern × text: a policy cannot be made slow by a topic.
pub(super) fn matches<'v>(
    pattern: &[Token],
    text: Text<'_>,
    value_of: &impl Fn(&Variable) -> Option<&'v str>,
    unresolved: Unresolved,
    case: Case,
) -> bool {
    let (mut next, mut rest) = (0, text);
    let mut last_any: Option<(usize, Text<'_>)> = None;
    loop {
        let step = match pattern.get(next) {
            // A `*` at the end takes whatever is left.
            Some(Token::Any) if next + 1 == pattern.len() => return true,
            Some(Token::Any) => {
                last_any = Some((next + 1, rest));
                Some(rest)
            }
            Some(Token::One) => rest.without_first_char().map(|(_, rest)| rest),
            Some(Token::Literal(literal)) => rest.strip(literal, case),
            Some(Token::Variable(variable)) => match (value_of(variable), unresolved) {
                (Some(value), _) => rest.strip(value, case),
                (None, Unresolved::Never) => return false,
                (None, Unresolved::Anything) => {
                    last_any = Some((next + 1, rest));
                    Some(rest)
                }
            },
            None if rest.is_empty() => return true,
            None => None,
        };
        if let Some(after) = step {
            next += 1;
            rest = after;
            continue;
        }
        // Let the last `*` take one character more.
        let Some((resume, from)) = last_any else {
            return false;
        };
        let Some((_, from)) = from.without_first_char() else {
            return false;
        };
        last_any = Some((resume, from));
        next = resume;
        rest = from;
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

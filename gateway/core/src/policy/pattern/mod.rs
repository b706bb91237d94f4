//! Resource patterns: ARNs with wildcards and variables.
//!
//! A pattern is compiled to tokens once; matching substitutes values as literals, which are never
//! scanned for wildcards or variables again (a client that calls itself `*` gains nothing).

use std::fmt;

use crate::problem::nearest;

/// A policy variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Variable {
    /// `iot:ClientId`
    ClientId,
    /// `iot:CertificateId`
    CertificateId,
    /// `iot:Connection.Thing.ThingName`
    ThingName,
    /// `iot:Connection.Thing.ThingTypeName`
    ThingTypeName,
    /// `iot:Connection.Thing.Attributes[…]`
    Attribute(Box<str>),
    /// `iot:Connection.Thing.IsAttached`
    IsAttached,
}

const VARIABLES: [(&str, Variable); 5] = [
    ("iot:ClientId", Variable::ClientId),
    ("iot:CertificateId", Variable::CertificateId),
    ("iot:Connection.Thing.ThingName", Variable::ThingName),
    (
        "iot:Connection.Thing.ThingTypeName",
        Variable::ThingTypeName,
    ),
    ("iot:Connection.Thing.IsAttached", Variable::IsAttached),
];
const ATTRIBUTES: &str = "iot:Connection.Thing.Attributes[";

impl Variable {
    fn parse(name: &str) -> Result<Self, (String, String)> {
        if let Some((_, variable)) = VARIABLES.iter().find(|(known, _)| *known == name) {
            return Ok(variable.clone());
        }
        let attribute = name
            .strip_prefix(ATTRIBUTES)
            .and_then(|rest| rest.strip_suffix(']'));
        if let Some(attribute) = attribute.filter(|attribute| !attribute.is_empty()) {
            return Ok(Self::Attribute(attribute.into()));
        }
        let known = VARIABLES.iter().map(|(known, _)| *known);
        if let Some(near) = nearest(name, known.clone()) {
            return Err((
                format!("unknown policy variable `${{{name}}}`"),
                format!("write `${{{near}}}`"),
            ));
        }
        Err((
            format!("policy variable `${{{name}}}` is not supported"),
            format!(
                "use one of {}, {ATTRIBUTES}NAME]",
                known.collect::<Vec<_>>().join(", ")
            ),
        ))
    }
}

impl fmt::Display for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Attribute(name) = self {
            return write!(f, "{ATTRIBUTES}{name}]");
        }
        let known = VARIABLES.iter().find(|(_, variable)| variable == self);
        f.write_str(known.map_or("", |(name, _)| name))
    }
}

/// What a variable without a value does to a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unresolved {
    /// The pattern does not match.
    Never,
    /// The variable counts as `*`.
    Anything,
}

/// The value of a variable in one request.
pub(super) type Resolve<'r> = dyn Fn(&Variable) -> Option<&'r str> + 'r;

/// A compiled resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pattern {
    /// `*`
    Everything,
    /// A resource of a service other than `iot`.
    Nothing,
    /// The tokens of `type/name`.
    Name(Vec<Token>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Literal(Box<str>),
    /// `*`
    Any,
    /// `?`
    One,
    Variable(Variable),
}

/// A part of a pattern with its variables replaced.
#[derive(Clone, Copy)]
enum Piece<'p> {
    Literal(&'p str),
    Any,
    One,
}

const RESOURCE_TYPES: [&str; 5] = ["client", "topic", "topicfilter", "thing", "rolealias"];

impl Pattern {
    /// Compiles one resource; the error is message and remedy.
    pub(super) fn parse(text: &str) -> Result<Self, (String, String)> {
        if text == "*" {
            return Ok(Self::Everything);
        }
        let not_an_arn = || {
            (
                format!("`{text}` is no ARN of AWS IoT"),
                "write `arn:aws:iot:REGION:ACCOUNT:TYPE/NAME`, for example \
                 `arn:aws:iot:*:*:topic/dt/*`, or `*`"
                    .to_owned(),
            )
        };
        let segments = split_arn(text).ok_or_else(not_an_arn)?;
        let [arn, partition, service, _region, _account, name] = segments;
        if arn != "arn"
            || !["aws", "aws-cn", "aws-us-gov"]
                .iter()
                .any(|known| wildcard_match(partition, known))
        {
            return Err(not_an_arn());
        }
        if service == "greengrass" {
            return Ok(Self::Nothing);
        }
        if !wildcard_match(service, "iot") {
            return Err(not_an_arn());
        }
        let tokens = tokenize(name)?;
        check_type(text, &tokens)?;
        Ok(Self::Name(tokens))
    }

    /// Whether the pattern takes `resource`, which is `TYPE/NAME`.
    pub(super) fn matches(
        &self,
        resource: &str,
        resolve: &Resolve<'_>,
        unresolved: Unresolved,
    ) -> bool {
        let tokens = match self {
            Self::Everything => return true,
            Self::Nothing => return false,
            Self::Name(tokens) => tokens,
        };
        // Most patterns fail here, before anything is allocated.
        if let Some(Token::Literal(start)) = tokens.first()
            && !resource.starts_with(&**start)
        {
            return false;
        }
        let is_filter = resource.starts_with("topicfilter/");
        let mut pieces = Vec::with_capacity(tokens.len());
        for token in tokens {
            pieces.push(match token {
                Token::Literal(literal) => Piece::Literal(literal),
                Token::Any => Piece::Any,
                Token::One => Piece::One,
                Token::Variable(variable) => {
                    let value = resolve(variable)
                        .filter(|value| !value.is_empty())
                        // The attack: a client named `+` makes `a/${…}/b` the filter `a/+/b`.
                        .filter(|value| !is_filter || !value.contains(['+', '#']));
                    match (value, unresolved) {
                        (Some(value), _) => Piece::Literal(value),
                        (None, Unresolved::Anything) => Piece::Any,
                        (None, Unresolved::Never) => return false,
                    }
                }
            });
        }
        matches(&pieces, resource)
    }
}

/// A literal type that AWS IoT does not have would silently match nothing.
fn check_type(text: &str, tokens: &[Token]) -> Result<(), (String, String)> {
    let Some(Token::Literal(start)) = tokens.first() else {
        return Ok(());
    };
    let Some((resource_type, _)) = start.split_once('/') else {
        return match tokens {
            [Token::Literal(_)] => Err((
                format!("`{text}` names no resource"),
                "end it with TYPE/NAME, for example `topic/dt/*`".to_owned(),
            )),
            _ => Ok(()),
        };
    };
    if RESOURCE_TYPES.contains(&resource_type) {
        return Ok(());
    }
    let remedy = match nearest(resource_type, RESOURCE_TYPES) {
        Some(near) => format!("write `{near}/…`"),
        None => format!("use one of {}", RESOURCE_TYPES.join(", ")),
    };
    Err((format!("unknown resource type `{resource_type}`"), remedy))
}

/// Splits at the first five colons outside of `${…}`, so that a wildcard in one segment can never
/// reach into the next.
fn split_arn(text: &str) -> Option<[&str; 6]> {
    let mut cuts = Vec::with_capacity(5);
    let mut in_variable = false;
    for (at, c) in text.char_indices() {
        match c {
            '$' if text.get(at + 1..)?.starts_with('{') => in_variable = true,
            '}' => in_variable = false,
            ':' if !in_variable && cuts.len() < 5 => cuts.push(at),
            _ => {}
        }
    }
    let [a, b, c, d, e] = cuts.try_into().ok()?;
    Some([
        text.get(..a)?,
        text.get(a + 1..b)?,
        text.get(b + 1..c)?,
        text.get(c + 1..d)?,
        text.get(d + 1..e)?,
        text.get(e + 1..)?,
    ])
}

fn tokenize(text: &str) -> Result<Vec<Token>, (String, String)> {
    let mut tokens = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let mut used = c.len_utf8();
        let token = match c {
            '*' => Some(Token::Any),
            '?' => Some(Token::One),
            '$' if rest.starts_with("${") => {
                let Some(end) = rest.find('}') else {
                    return Err((
                        format!("`{rest}` is not closed"),
                        "write `${NAME}`, or `${$}` for a dollar sign".to_owned(),
                    ));
                };
                used = end + 1;
                match rest.get(2..end).unwrap_or_default() {
                    escaped @ ("*" | "?" | "$") => {
                        literal.push_str(escaped);
                        None
                    }
                    name => Some(Token::Variable(Variable::parse(name)?)),
                }
            }
            c => {
                literal.push(c);
                None
            }
        };
        if let Some(token) = token {
            if !literal.is_empty() {
                tokens.push(Token::Literal(std::mem::take(&mut literal).into()));
            }
            // `**` is `*`.
            if token != Token::Any || tokens.last() != Some(&Token::Any) {
                tokens.push(token);
            }
        }
        rest = rest.get(used..).unwrap_or_default();
    }
    if !literal.is_empty() {
        tokens.push(Token::Literal(literal.into()));
    }
    Ok(tokens)
}

/// Whether `pattern`, in which only `*` and `?` are special, takes the whole of `text`.
pub(super) fn wildcard_match(pattern: &str, text: &str) -> bool {
    let mut pieces = Vec::new();
    let mut rest = pattern;
    while let Some(at) = rest.find(['*', '?']) {
        let (literal, wildcard) = rest.split_at(at);
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        }
        let any = wildcard.starts_with('*');
        pieces.push(if any { Piece::Any } else { Piece::One });
        rest = wildcard.get(1..).unwrap_or_default();
    }
    if !rest.is_empty() {
        pieces.push(Piece::Literal(rest));
    }
    matches(&pieces, text)
}

/// Anchored at both ends. Going back to the last `*` alone is enough, so the time is at most
/// pattern × text: a policy cannot be made slow by a topic.
fn matches(pieces: &[Piece<'_>], text: &str) -> bool {
    let (mut piece, mut rest) = (0, text);
    let mut last_any: Option<(usize, &str)> = None;
    loop {
        let step = match pieces.get(piece) {
            Some(Piece::Any) => {
                last_any = Some((piece + 1, rest));
                Some(rest)
            }
            Some(Piece::One) => skip_char(rest),
            Some(Piece::Literal(literal)) => rest.strip_prefix(literal),
            None if rest.is_empty() => return true,
            None => None,
        };
        if let Some(after) = step {
            piece += 1;
            rest = after;
            continue;
        }
        // Let the last `*` take one character more.
        let Some((resume, from)) = last_any else {
            return false;
        };
        let Some(from) = skip_char(from) else {
            return false;
        };
        last_any = Some((resume, from));
        piece = resume;
        rest = from;
    }
}

fn skip_char(text: &str) -> Option<&str> {
    let mut chars = text.chars();
    chars.next().map(|_| chars.as_str())
}

#[cfg(test)]
mod tests;

//! Resources: ARNs with wildcards and variables (specification A.2).

use super::{
    Fault,
    action::ResourceType,
    context::Values,
    glob::{
        Case, Text, Token, Unresolved, Wildcards, matches, matches_plain, tokenize, wildcard_match,
        wildcards,
    },
    rules::{ArnIdentity, Rules},
    variable::Variable,
};
use crate::problem::nearest;

/// One entry of `Resource` or `NotResource`, compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resource {
    text: Box<str>,
    pattern: Pattern,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    /// `*`
    Everything,
    /// A resource that nothing here asks for: of another service, or of a type without messages.
    Nothing,
    Name {
        /// `None` where every partition, region and account will do.
        owner: Option<Box<Owner>>,
        /// The type, if the pattern spells it out; its tokens are those of the name alone then.
        only: Option<ResourceType>,
        tokens: Vec<Token>,
    },
}

/// Partition, region and account. Matched one by one, so that a wildcard in one of them can never
/// reach into the next.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Owner {
    partition: Vec<Token>,
    region: Vec<Token>,
    account: Vec<Token>,
}

/// A resource as it reads for one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The text of the policy, with the value of each variable that has one.
    pub text: String,
    /// The names of the variables that have none; they stand in the text as they were.
    pub unresolved: Vec<String>,
}

/// The types that AWS IoT has.
const TYPES: [&str; 5] = ["client", "topic", "topicfilter", "thing", "rolealias"];
/// Those of them that no message is about.
const OTHER_TYPES: [&str; 2] = ["thing", "rolealias"];
const PARTITIONS: [&str; 3] = ["aws", "aws-cn", "aws-us-gov"];

impl Resource {
    /// Compiles one resource; the error is message and remedy.
    pub(super) fn parse(text: &str) -> Result<Self, Fault> {
        Ok(Self {
            text: text.into(),
            pattern: Pattern::parse(text)?,
        })
    }

    /// As the policy has it.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Whether it takes the resource `name` of type `asked`.
    pub(super) fn matches(
        &self,
        asked: ResourceType,
        name: &str,
        values: &Values<'_>,
        unresolved: Unresolved,
        rules: &Rules,
    ) -> bool {
        let (owner, only, tokens) = match &self.pattern {
            Pattern::Everything => return true,
            Pattern::Nothing => return false,
            Pattern::Name {
                owner,
                only,
                tokens,
            } => (owner, *only, tokens),
        };
        let text = match only {
            Some(only) if only != asked => return false,
            Some(_) => Text::of(name),
            None => Text::joined(asked.prefix(), name),
        };
        let value_of = |variable: &Variable| values.substitute(variable);
        matches(tokens, text, &value_of, unresolved, Case::Sensitive)
            && (!rules.strict_arn || owner.as_ref().is_none_or(|owner| owner.is(&rules.arn)))
    }

    /// The text with values in place of variables.
    pub(super) fn read(&self, values: &Values<'_>) -> Reading {
        let mut reading = Reading {
            text: String::new(),
            unresolved: Vec::new(),
        };
        let mut rest = &*self.text;
        while let Some((before, after)) = rest.split_once("${") {
            let (name, after) = after.split_once('}').unwrap_or((after, ""));
            reading.text.push_str(before);
            rest = after;
            let variable = Variable::parse(name).ok();
            match variable
                .as_ref()
                .map(|variable| values.substitute(variable))
            {
                Some(Some(value)) => reading.text.push_str(value),
                no_value => {
                    if no_value.is_some() && !reading.unresolved.iter().any(|known| known == name) {
                        reading.unresolved.push(name.to_owned());
                    }
                    reading.text.push_str("${");
                    reading.text.push_str(name);
                    reading.text.push('}');
                }
            }
        }
        reading.text.push_str(rest);
        reading
    }
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, Fault> {
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
        let [arn, partition, service, region, account, name] =
            split_arn(text).ok_or_else(not_an_arn)?;
        if [arn, partition, service, region, account]
            .iter()
            .any(|segment| segment.contains('$'))
        {
            return Err((
                format!("`{text}` has a variable before its fifth colon"),
                "write that part out, or `*`; variables stand in TYPE/NAME alone".to_owned(),
            ));
        }
        if arn != "arn" || !PARTITIONS.iter().any(|p| wildcard_match(partition, p)) {
            return Err(not_an_arn());
        }
        if service == "greengrass" {
            return Ok(Self::Nothing);
        }
        if !wildcard_match(service, "iot") {
            return Err(not_an_arn());
        }
        // As a page of AWS has it.
        let of_others = |kind| {
            name.strip_prefix('/')?
                .strip_prefix(kind)?
                .strip_prefix('/')
        };
        if let Some(others) = OTHER_TYPES
            .iter()
            .find_map(of_others)
            .filter(|n| !n.is_empty())
        {
            tokenize(others, Wildcards::Honoured)?;
            return Ok(Self::Nothing);
        }
        let mut tokens = tokenize(name, Wildcards::Honoured)?;
        check_type(text, &tokens)?;
        let only = match tokens.first().cloned() {
            Some(Token::Literal(start)) => match start.split_once('/') {
                None => None,
                Some((kind, rest)) => {
                    let Some(asked) = ResourceType::ALL.into_iter().find(|t| t.name() == kind)
                    else {
                        return Ok(Self::Nothing);
                    };
                    let rest = (!rest.is_empty()).then(|| Token::Literal(rest.into()));
                    tokens.splice(..1, rest);
                    Some(asked)
                }
            },
            _ => None,
        };
        Ok(Self::Name {
            owner: Owner::parse(partition, region, account),
            only,
            tokens,
        })
    }
}

impl Owner {
    fn parse(partition: &str, region: &str, account: &str) -> Option<Box<Self>> {
        let segments = [partition, region, account];
        segments.iter().any(|segment| *segment != "*").then(|| {
            Box::new(Self {
                partition: wildcards(partition),
                region: wildcards(region),
                account: wildcards(account),
            })
        })
    }

    fn is(&self, identity: &ArnIdentity) -> bool {
        matches_plain(&self.partition, Text::of(&identity.partition))
            && matches_plain(&self.region, Text::of(&identity.region))
            && matches_plain(&self.account, Text::of(&identity.account))
    }
}

/// A type that AWS IoT does not have would silently match nothing, and so would a type without a name.
/// What stands before the first `/` or `*` must therefore be a type, or the beginning of one; without
/// variables: a client must not complete it.
fn check_type(text: &str, tokens: &[Token]) -> Result<(), Fault> {
    let slash = |token: &Token| matches!(token, Token::Literal(literal) if literal.contains('/'));
    let variable = |token: &Token| matches!(token, Token::Variable(_));
    if tokens
        .iter()
        .find(|token| slash(token) || variable(token))
        .is_some_and(variable)
    {
        return Err((
            format!("`{text}` has a variable before its first `/`"),
            "write the type out, for example `topic/…`; variables stand in the name alone"
                .to_owned(),
        ));
    }
    let fixed = tokens.iter().take_while(|token| **token != Token::Any);
    let start: Vec<Option<char>> = fixed.flat_map(characters).collect();
    let is_open = tokens.contains(&Token::Any);
    let mut fitting = TYPES.iter().filter_map(|known| fits(&start, known));
    match fitting.next() {
        Some(has_name) if has_name || is_open || fitting.any(|has_name| has_name) => Ok(()),
        Some(_) => Err(names_nothing(text)),
        None => {
            let until = |c: &&Option<char>| **c != Some('/');
            let kind: String = start
                .iter()
                .take_while(until)
                .map(|c| c.unwrap_or('?'))
                .collect();
            let remedy = match nearest(&kind, TYPES) {
                Some(near) => format!("write `{near}/…`"),
                None => format!("use one of {}", TYPES.join(", ")),
            };
            Err((format!("unknown resource type `{kind}`"), remedy))
        }
    }
}

/// The characters that a token takes, `None` for any; of a variable, one: it has a value.
fn characters(token: &Token) -> Vec<Option<char>> {
    match token {
        Token::Literal(literal) => literal.chars().map(Some).collect(),
        Token::One | Token::Variable(_) | Token::Any => vec![None],
    }
}

/// Whether there is something behind `known/` in a pattern that begins with `start`; `None` if no
/// resource of this type does.
fn fits(start: &[Option<char>], known: &str) -> Option<bool> {
    let mut behind = start.iter();
    for expected in known.chars().chain(['/']) {
        match behind.next() {
            None => return Some(false),
            Some(Some(c)) if *c != expected => return None,
            Some(_) => {}
        }
    }
    Some(behind.next().is_some())
}

fn names_nothing(text: &str) -> Fault {
    (
        format!("`{text}` names no resource"),
        "end it with TYPE/NAME, for example `topic/dt/*`".to_owned(),
    )
}

/// Splits at the first five colons outside of `${…}`.
pub(super) fn split_arn(text: &str) -> Option<[&str; 6]> {
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

#[cfg(test)]
mod tests;

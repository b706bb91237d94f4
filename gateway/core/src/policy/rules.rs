//! How a gateway reads policies: what the operator may choose.

use super::Action;

/// The partition, region and account that the gateway stands for: it builds the ARNs of requests
/// from them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArnIdentity {
    /// `aws`, `aws-cn` or `aws-us-gov`.
    pub partition: String,
    /// For example `eu-central-1`.
    pub region: String,
    /// Twelve digits.
    pub account: String,
}

impl ArnIdentity {
    /// The ARN of what `action` is asked for on `resource`: a client id, topic or topic filter.
    pub fn arn(&self, action: Action, resource: &str) -> String {
        let Self {
            partition,
            region,
            account,
        } = self;
        let kind = action.resource_type();
        format!("arn:{partition}:iot:{region}:{account}:{kind}/{resource}")
    }
}

impl Default for ArnIdentity {
    /// `arn:aws:iot:local:000000000000:…`, which is nobody's.
    fn default() -> Self {
        Self {
            partition: "aws".to_owned(),
            region: "local".to_owned(),
            account: "000000000000".to_owned(),
        }
    }
}

/// How a set of policies is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// What the gateway stands for.
    pub arn: ArnIdentity,
    /// Whether partition, region and account of a resource must match `arn`. Without it a policy
    /// written for one account holds in any.
    pub strict_arn: bool,
    /// Whether a variable without a value makes a Deny wider. Without it such a Deny does not apply,
    /// as at AWS; an Allow never does.
    pub deny_on_unresolved: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            arn: ArnIdentity::default(),
            strict_arn: false,
            deny_on_unresolved: true,
        }
    }
}

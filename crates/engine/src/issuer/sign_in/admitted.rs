//! Who of those who signed in may go on.

use tokenkeep_core::Subject;

use crate::issuer::Admitted;

/// Somebody, as far as the rules look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Who<'a> {
    pub(super) subject: &'a Subject,
    /// What nobody else is called at the provider.
    pub(super) unique_name: Option<&'a str>,
    /// An address that the provider vouches for.
    pub(super) email: Option<&'a str>,
    pub(super) organizations: &'a [String],
}

impl Who<'_> {
    fn signed_in_at(&self, integration: &str) -> bool {
        self.subject.as_str().split_once('|').is_some_and(|(at, _)| at == integration)
    }
}

impl Admitted {
    /// Whether there is any rule.
    fn is_bounded(&self) -> bool {
        self.users.is_some() || self.email_domains.is_some() || self.organizations.is_some()
    }

    /// Whether a rule looks at addresses.
    pub(super) fn looks_at_email(&self) -> bool {
        self.users.is_some() || self.email_domains.is_some()
    }

    /// Whether `who` may go on. Names, domains and organisations are compared without regard to case, as those who give
    /// them out do.
    pub(super) fn admits(&self, who: &Who<'_>) -> bool {
        if !self.is_bounded() {
            return true;
        }
        let same = |rule: &String, text: &str| rule.eq_ignore_ascii_case(text);
        let by_user = self.users.iter().flatten().any(|user| {
            user == who.subject.as_str()
                || who.unique_name.is_some_and(|name| same(user, name))
                || who.email.is_some_and(|email| same(user, email))
        });
        let domain = who.email.and_then(|email| email.rsplit_once('@')).map(|(_, domain)| domain);
        let by_domain = self.email_domains.iter().flatten().any(|rule| domain.is_some_and(|domain| same(rule, domain)));
        let by_organization = self.organizations.iter().flatten().any(|rule| {
            let rule = match rule.split_once('|') {
                Some((integration, organization)) if who.signed_in_at(integration) => organization,
                Some(_) => return false,
                None => rule,
            };
            who.organizations.iter().any(|organization| rule.eq_ignore_ascii_case(organization))
        });
        by_user || by_domain || by_organization
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn set(words: &str) -> BTreeSet<String> {
        words.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn who_is_named_by_a_rule_may_go_on() {
        let (users, domains, organizations) = (
            |words| Admitted { users: Some(set(words)), ..Admitted::default() },
            |words| Admitted { email_domains: Some(set(words)), ..Admitted::default() },
            |words| Admitted { organizations: Some(set(words)), ..Admitted::default() },
        );
        let both = Admitted { users: Some(set("bob")), email_domains: Some(set("example.com")), organizations: None };
        let neither = Admitted { users: Some(set("bob")), email_domains: Some(set("")), organizations: Some(set("x")) };
        let table = [
            (Admitted::default(), true),
            (users("github|42"), true),
            (users("Alice"), true),
            (users("alice@EXAMPLE.com"), true),
            (users("github|4 github|421 lice bob"), false),
            (users("GITHUB|42"), false),
            (users(""), false),
            (domains("example.com"), true),
            (domains("EXAMPLE.COM"), true),
            (domains("ample.com xample.com evil-example.com com sub.example.com"), false),
            (domains("@example.com"), false),
            (domains(""), false),
            (organizations("Acme"), true),
            (organizations("acm"), false),
            (organizations("github|ACME"), true),
            (organizations("google|acme"), false),
            (organizations("github|acm"), false),
            (organizations(""), false),
            (both, true),
            (neither, false),
        ];
        let subject = Subject::new("github|42").unwrap();
        let organizations = ["acme".to_owned()];
        let alice = Who {
            subject: &subject,
            unique_name: Some("alice"),
            email: Some("alice@example.com"),
            organizations: &organizations,
        };
        for (rules, expected) in table {
            assert_eq!(rules.admits(&alice), expected, "{rules:?}");
        }
    }

    #[test]
    fn what_is_not_known_matches_nothing() {
        let subject = Subject::new("oidc|1").unwrap();
        let nobody = Who { subject: &subject, unique_name: None, email: None, organizations: &[] };
        let rules = Admitted {
            users: Some([String::new(), "alice".to_owned()].into()),
            email_domains: Some([String::new()].into()),
            organizations: Some([String::new()].into()),
        };
        assert!(!rules.admits(&nobody));
        // An address whose local part holds another one.
        let sly = Who { email: Some("x@example.com@evil.example"), ..nobody };
        let example = Admitted { email_domains: Some(["example.com".to_owned()].into()), ..Admitted::default() };
        assert!(!example.admits(&sly));
    }
}

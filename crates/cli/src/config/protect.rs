//! `[[protect]]`

use super::section::section;

section! {
    /// Servers that know nothing of users, such as MCP servers, with tokenkeep in front of them: who comes to `path` needs
    /// an access token, and the server is told who it is. Each is a resource by itself, beside `[[issuer.resource]]`; where
    /// nothing is said of an `[issuer]`, one comes with it. docs/protect.md goes through it.
    MANY "protect" Protect {
        /// Where it is reached here. With `server.public_url` before it, it is what stands in a token's `aud`.
        path: Option<String> = None, Text "\"/mcp\"";
        /// Where the server itself is. In the clear only on this machine and in private networks.
        upstream: Option<String> = None, Text "\"http://localhost:3000/mcp\"";
        /// Where its users sign in: an integration's id, or `local`. Left out: where those of the issuer do.
        provider: Option<String> = None, Text "\"google\"";
        /// For people, on the consent page.
        name: Option<String> = None, Text "\"Example MCP\"";
        /// The scopes that every request needs, all of them. Left out: none.
        scopes: Vec<String> = Vec::new(), List "[\"mcp\"]";
        /// What the server gets of the user's token at the provider: `none`, `authorization` (it comes as
        /// `Authorization: Bearer`), or the name of a header to put it into.
        forward_token: String = "none".to_owned(), Text "\"none\"";
    }
}

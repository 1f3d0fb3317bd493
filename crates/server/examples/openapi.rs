//! Prints the OpenAPI description: `docs/openapi.json` is made of it.

use std::io::Write as _;

fn main() -> std::io::Result<()> {
    std::io::stdout().write_all(tokenkeep_server::openapi_json().as_bytes())
}

//! Finding everything in order, or saying in a sentence what is not.

use serde_json::{Value, json};

use super::{
    error::{Failure, OpenError},
    http::{Answer, Body, Call, Reply},
    kv::Kv,
    login::{Session, reason},
    options::{KvVersion, VaultOptions},
};

/// A mounted engine that can do what a store must, and the path of the records in it.
pub(super) async fn open(options: &VaultOptions) -> Result<(Kv, String), OpenError> {
    let mount = path_setting("mount", &options.mount)?;
    let root = path_setting("path", &options.path)?;
    let session = Session::open(&options.server).await?;
    let version = match options.engine {
        Some(version) => version,
        None => detect(&session, &mount).await?,
    };
    let kv = Kv::new(session, mount, version);
    check_capabilities(&kv, &root).await?;
    // The first real read: nothing else tells that the mount is there, where Vault may not be asked.
    kv.list(&root).await.map_err(|error| match error {
        _ if options.engine.is_none() => OpenError::Unavailable(reason(Failure::NothingDone(error))),
        _ => OpenError::NoMount { mount: kv.mount.clone() },
    })?;
    Ok((kv, root))
}

/// A path without slashes at its ends, of what needs no escaping anywhere.
pub(super) fn path_setting(setting: &'static str, path: &str) -> Result<String, OpenError> {
    let path = path.trim_matches('/');
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~=@:".contains(&b);
    let is_segment = |s: &str| !matches!(s, "" | "." | "..") && s.bytes().all(is_plain);
    if !path.split('/').all(is_segment) {
        let problem = "it must be made of letters, digits and - _ . ~ = @ :, with single slashes between".to_owned();
        return Err(OpenError::Setting { setting, problem });
    }
    Ok(path.to_owned())
}

/// Which engine is mounted there.
async fn detect(session: &Session, mount: &str) -> Result<KvVersion, OpenError> {
    let path = format!("sys/internal/ui/mounts/{mount}");
    let reply = ask(session, &path).await?;
    if let (true, Body::Json(value)) = (reply.status.is_success(), &reply.body) {
        let data = &value["data"];
        return match (data["type"].as_str(), data["options"]["version"].as_str()) {
            (Some("kv"), Some("2")) => Ok(KvVersion::V2),
            (Some("kv" | "generic"), _) => Ok(KvVersion::V1),
            (engine, _) => Err(OpenError::NotKv {
                mount: mount.to_owned(),
                engine: engine.unwrap_or("unknown").chars().flat_map(char::escape_debug).collect(),
            }),
        };
    }
    // Servers that cannot be asked are tried: version 2 has a configuration, version 1 a secret of that name at most.
    let reply = ask(session, &format!("{mount}/config")).await?;
    let status = reply.status.as_u16();
    match session.judge(reply) {
        Ok(Answer::Done(value)) if value["data"]["max_versions"].is_u64() => Ok(KvVersion::V2),
        Ok(Answer::Done(_) | Answer::Absent(_)) => Ok(KvVersion::V1),
        Err(_) if status == 404 => Err(OpenError::NoMount { mount: mount.to_owned() }),
        Err(_) if status == 403 => Err(OpenError::UnknownEngine { mount: mount.to_owned() }),
        Ok(Answer::Mismatch) => Err(OpenError::NotVault { address: session.http.address.clone() }),
        Err(failure) => Err(OpenError::Unavailable(reason(failure))),
    }
}

async fn ask(session: &Session, path: &str) -> Result<Reply, OpenError> {
    session.reply(Call::get(path)).await.map_err(|failure| OpenError::Unavailable(reason(failure)))
}

/// Asks what the token may do. A server that cannot be asked says so when it comes to it.
async fn check_capabilities(kv: &Kv, root: &str) -> Result<(), OpenError> {
    let mount = &kv.mount;
    let needed: Vec<(String, &[&str])> = match kv.version {
        KvVersion::V1 => vec![
            (format!("{mount}/{root}/meta/_default/x"), &["create", "read", "update", "delete"]),
            (format!("{mount}/{root}/meta/_default/"), &["list"]),
        ],
        KvVersion::V2 => vec![
            (format!("{mount}/data/{root}/meta/_default/x"), &["create", "read", "update"]),
            (format!("{mount}/metadata/{root}/meta/_default/x"), &["update", "delete"]),
            (format!("{mount}/metadata/{root}/meta/_default/"), &["list"]),
        ],
    };
    let paths: Vec<_> = needed.iter().map(|(path, _)| path).collect();
    let body = json!({"paths": paths});
    let reply = kv.session.reply(Call::post("sys/capabilities-self", &body)).await;
    let reply = reply.map_err(|failure| OpenError::Unavailable(reason(failure)))?;
    let (true, Body::Json(value)) = (reply.status.is_success(), &reply.body) else { return Ok(()) };
    for (path, capabilities) in needed {
        let granted = value["data"].get(&path).or_else(|| value.get(&path)).and_then(Value::as_array);
        let Some(granted) = granted else { return Ok(()) };
        let has = |wanted: &str| granted.iter().any(|c| c == wanted || c == "root");
        let missing: Vec<_> = capabilities.iter().copied().filter(|c| !has(c)).collect();
        if !missing.is_empty() {
            return Err(OpenError::MissingCapability { path, missing: missing.join(", ") });
        }
    }
    Ok(())
}

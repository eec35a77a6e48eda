//! The settings of remote stores, as they stand in the environment.
//!
//! Owns what is said about a value that cannot be used. Values come from files and manifests that people write, so a line
//! break at the end, an empty variable or an endpoint without a scheme is ordinary. Each ends in one line that names the
//! variable and says what to do. A value that may be a secret is never printed.

use std::ffi::OsString;
use std::{fmt, fs};

use url::Url;

/// A variable of the environment whose value can be used.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    pub name: String,
    pub value: String,
}

impl fmt::Debug for Setting {
    /// The name alone: the value may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// The settings of one kind of store, sorted by name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Settings(Vec<Setting>);

/// Variables that hold a whole file, and with it line breaks.
const HOLD_FILES: [&str; 3] = [
    "AWS_PROXY_CA_CERTIFICATE",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
    "AZURE_PROXY_CA_CERTIFICATE",
];

/// Variables that name a file.
const NAME_FILES: [&str; 7] = [
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AZURE_FEDERATED_TOKEN_FILE",
    "GOOGLE_SERVICE_ACCOUNT",
    "GOOGLE_SERVICE_ACCOUNT_PATH",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "SERVICE_ACCOUNT",
];

impl Settings {
    /// Reads the variables that `is_known` picks. Blanks around a value are cut off, and an empty value counts as none.
    ///
    /// # Errors
    /// One line that names the variable.
    pub fn read(
        variables: &[(OsString, OsString)],
        is_known: impl Fn(&str) -> bool,
    ) -> Result<Settings, String> {
        let mut found = Vec::new();
        for (name, value) in variables {
            let Some(name) = name.to_str().filter(|name| is_known(name)) else {
                continue;
            };
            let Some(value) = value.to_str() else {
                return Err(format!("{name} is no text in UTF-8"));
            };
            let value = value.trim();
            if value.is_empty() {
                tracing::warn!("{name} is empty, which counts as not set");
                continue;
            }
            check(name, value)?;
            found.push(Setting {
                name: name.to_owned(),
                value: value.to_owned(),
            });
        }
        // The environment has no order, and of two names of one setting the same is to win at every start.
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Settings(found))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Setting> {
        self.0.iter()
    }

    /// The first of these variables that is set.
    pub fn first_of(&self, names: &[&str]) -> Option<&Setting> {
        let by_name = |name: &&str| self.0.iter().find(|setting| setting.name == **name);
        names.iter().find_map(by_name)
    }

    /// Whether one of these variables is set.
    pub fn has(&self, names: &[&str]) -> bool {
        self.first_of(names).is_some()
    }

    fn without(&self, name: &str) -> Settings {
        let others = self.0.iter().filter(|setting| setting.name != name);
        Settings(others.cloned().collect())
    }

    /// Puts the name of the variable that is at fault in front of the client's complaint: the one without which a store
    /// could be built.
    pub fn blame(&self, complaint: &str, can_build: impl Fn(&Settings) -> bool) -> String {
        let at_fault = self
            .iter()
            .find(|setting| can_build(&self.without(&setting.name)));
        match at_fault {
            Some(setting) => format!("{} cannot be used: {complaint}", setting.name),
            None => complaint.to_owned(),
        }
    }
}

fn check(name: &str, value: &str) -> Result<(), String> {
    if !HOLD_FILES.contains(&name)
        && let Some(odd) = value.chars().find(|character| !matches!(character, ' '..='~'))
    {
        return Err(format!("{name} holds {} inside its value", describe(odd)));
    }
    if is_url(name) {
        check_url(name, value)?;
    }
    if name.ends_with("_REGION") && !value.chars().all(is_of_a_name) {
        return Err(format!(
            "{name}={value:?} is no name of a region, such as us-east-1"
        ));
    }
    if name.ends_with("_RELATIVE_URI") && !value.starts_with('/') {
        return Err(format!("{name}={value:?} has to begin with a slash"));
    }
    if NAME_FILES.contains(&name) {
        check_file(name, value)?;
    }
    Ok(())
}

fn is_of_a_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.')
}

fn describe(character: char) -> String {
    match character {
        '\n' | '\r' => "a line break".to_owned(),
        '\t' => "a tab".to_owned(),
        character if character.is_control() => {
            format!("a control character (code {})", u32::from(character))
        }
        character => format!("the character {character:?}, which is not ASCII,"),
    }
}

fn is_url(name: &str) -> bool {
    let ends = [
        "_ENDPOINT",
        "_ENDPOINT_URL",
        "_ENDPOINT_URL_S3",
        "_ENDPOINT_URL_STS",
        "_FULL_URI",
        "_BASE_URL",
        "_PROXY_URL",
        "_AUTHORITY_HOST",
    ];
    ends.iter().any(|end| name.ends_with(end)) && !name.contains("_USE_")
}

fn check_url(name: &str, value: &str) -> Result<(), String> {
    if value.contains(' ') {
        return Err(format!("{name}={value:?} holds a blank inside its address"));
    }
    let Some((scheme, rest)) = value.split_once("://") else {
        return Err(format!(
            "{name}={value:?} has no scheme: write http://{value} or https://{value}"
        ));
    };
    if !matches!(scheme, "http" | "https") && !name.ends_with("_PROXY_URL") {
        return Err(format!("{name}={value:?} has to begin with http:// or https://"));
    }
    if rest.is_empty() || rest.starts_with('/') {
        return Err(format!("{name}={value:?} has no host behind the scheme"));
    }
    let url = Url::parse(value).map_err(|error| format!("{name}={value:?} is no address: {error}"))?;
    if url.host_str().is_none_or(str::is_empty) {
        return Err(format!("{name}={value:?} has no host behind the scheme"));
    }
    Ok(())
}

fn check_file(name: &str, path: &str) -> Result<(), String> {
    let unreadable =
        |error: &dyn std::fmt::Display| format!("{name} names {path}, which cannot be read: {error}");
    let contents = fs::read(path).map_err(|error| unreadable(&error))?;
    if contents.iter().all(u8::is_ascii_whitespace) {
        return Err(format!("{name} names {path}, which is empty"));
    }
    if name == "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE" {
        check_token(name, path, &contents)?;
    }
    Ok(())
}

/// A container's token goes into a header as it stands in its file: AWS's own tools refuse line breaks there as well.
pub(crate) fn check_token(name: &str, path: &str, token: &[u8]) -> Result<(), String> {
    if token.iter().all(|byte| matches!(byte, b' '..=b'~')) {
        return Ok(());
    }
    Err(format!(
        "{name} names {path}, which holds a line break or another character that no token has: \
         write the token without one, as `printf %s` does"
    ))
}

/// Checks the variables that say where this machine's CA certificates are.
pub(crate) fn check_certificates(variables: &[(OsString, OsString)]) -> Result<(), String> {
    let value = |wanted: &str| {
        let named = variables.iter().find(|(name, _)| name == wanted);
        named.map(|(_, value)| value)
    };
    for name in ["SSL_CERT_FILE", "SSL_CERT_DIR"] {
        if value(name).is_some_and(|value| value.is_empty()) {
            return Err(format!(
                "{name} is empty, which hides the machine's own CA certificates: unset it"
            ));
        }
    }
    if let Some(path) = value("SSL_CERT_FILE") {
        let unusable = |what: &dyn std::fmt::Display| {
            format!(
                "SSL_CERT_FILE names {}, {what}: name a file with CA certificates in PEM, or unset it",
                path.display()
            )
        };
        let contents =
            fs::read(path).map_err(|error| unusable(&format_args!("which cannot be read ({error})")))?;
        if !contents.windows(10).any(|window| window == b"-----BEGIN") {
            return Err(unusable(&"which holds no certificate"));
        }
    }
    if let Some(path) = value("SSL_CERT_DIR") {
        // A list, as `PATH` is.
        let some = std::env::split_paths(path).any(|directory| directory.is_dir());
        if !some {
            return Err(format!(
                "SSL_CERT_DIR names {}, which is no directory: name one with CA certificates, or unset it",
                path.display()
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, value: &str) -> Result<Settings, String> {
        Settings::read(&[(name.into(), value.into())], |_| true)
    }

    fn complaint(name: &str, value: &str) -> String {
        let said = read(name, value).expect_err(name);
        assert!(said.starts_with(name), "the variable is not named: {said}");
        assert!(!said.contains('\n'), "more than one line: {said}");
        said
    }

    #[test]
    fn blanks_around_a_value_are_cut_off_and_empty_ones_count_as_none() {
        for given in ["key\n", " key", "\r\nkey\t "] {
            let settings = read("AWS_SECRET_ACCESS_KEY", given).unwrap();
            assert_eq!(
                settings.first_of(&["AWS_SECRET_ACCESS_KEY"]).unwrap().value,
                "key"
            );
        }
        for given in ["", " ", "\n"] {
            assert!(!read("AWS_ENDPOINT", given).unwrap().has(&["AWS_ENDPOINT"]));
        }
    }

    #[test]
    fn values_that_cannot_be_used_are_refused_by_name() {
        for (name, value, part) in [
            ("AWS_ENDPOINT", "127.0.0.1:9000", "http://127.0.0.1:9000"),
            ("AWS_ENDPOINT_URL", "minio:9000", "https://minio:9000"),
            ("AWS_ENDPOINT_URL_S3", "http://", "no host"),
            ("AWS_ENDPOINT", "http://a:99999", "no address"),
            ("AWS_ENDPOINT", "ftp://a", "http:// or https://"),
            ("AWS_ENDPOINT", "http://a b", "a blank"),
            ("GOOGLE_BASE_URL", "localhost:4443", "no scheme"),
            ("AZURE_STORAGE_ENDPOINT", "http:///x", "no host"),
            ("AWS_REGION", "us east", "no name of a region"),
            ("AWS_ACCESS_KEY_ID", "a\u{7}b", "control character (code 7)"),
            ("AWS_SECRET_ACCESS_KEY", "one\ntwo", "a line break"),
            ("AZURE_STORAGE_ACCOUNT_KEY", "k\u{e9}y", "not ASCII"),
            ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "v2", "slash"),
            ("GOOGLE_APPLICATION_CREDENTIALS", "/no/such/file", "No such file"),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", "/", "cannot be read"),
        ] {
            let said = complaint(name, value);
            assert!(said.contains(part), "{name}={value}: {said}");
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let said = complaint("AWS_SECRET_ACCESS_KEY", "wJalr\nXUtn");
        assert!(!said.contains("wJalr") && !said.contains("XUtn"), "{said}");
    }

    #[test]
    fn a_token_file_with_a_line_break_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap().to_owned();
        let name = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE";
        fs::write(&path, "token").unwrap();
        assert!(read(name, &path).is_ok());
        fs::write(&path, "token\n").unwrap();
        assert!(complaint(name, &path).contains("line break"));
        fs::write(&path, "").unwrap();
        assert!(complaint(name, &path).contains("empty"));
    }

    #[test]
    fn the_variable_at_fault_is_the_one_without_which_all_is_well() {
        let variables = [("A_X", "1"), ("A_Y", "bad"), ("A_Z", "2")].map(|(n, v)| (n.into(), v.into()));
        let settings = Settings::read(&variables, |_| true).unwrap();
        let said = settings.blame("no", |settings| {
            settings.iter().all(|setting| setting.value != "bad")
        });
        assert_eq!(said, "A_Y cannot be used: no");
        assert_eq!(settings.blame("no", |_| false), "no");
    }

    #[test]
    fn certificates_that_are_not_there_are_named() {
        let check = |name: &str, value: &str| check_certificates(&[(name.into(), value.into())]);
        assert_eq!(check("SSL_OTHER", ""), Ok(()));
        assert!(check("SSL_CERT_FILE", "").unwrap_err().contains("unset it"));
        let said = check("SSL_CERT_FILE", "/no/such.pem").unwrap_err();
        assert!(
            said.starts_with("SSL_CERT_FILE names /no/such.pem, which cannot be read (No such file"),
            "{said}"
        );
        let said = check("SSL_CERT_DIR", "/no/such/directory").unwrap_err();
        assert!(said.starts_with("SSL_CERT_DIR names"), "{said}");
        let file = tempfile::NamedTempFile::new().unwrap();
        let said = check("SSL_CERT_FILE", file.path().to_str().unwrap()).unwrap_err();
        assert!(said.contains("no certificate"), "{said}");
    }
}

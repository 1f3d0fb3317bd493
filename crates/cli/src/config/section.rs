//! How a section of the configuration is declared: once. The struct that is read, the list of its valid keys and the
//! text of `tokenkeep.example.toml` are the same declaration, so that none of them can lag behind.

/// A section: `[name]`, or `[[name]]` where there may be many.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) name: &'static str,
    pub(crate) many: bool,
    pub(crate) docs: &'static [&'static str],
    pub(crate) keys: &'static [Key],
}

/// One key of a section.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) docs: &'static [&'static str],
    /// A value as it stands in the file: the default, or an example where there is none.
    pub(crate) example: &'static str,
    pub(crate) shape: Shape,
}

/// What a key takes; decides how an environment variable is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Text,
    Number,
    Flag,
    List,
    Table,
    /// Sections of their own below this one: `[[section.key]]`.
    Tables,
}

/// Declares a section: its struct, its defaults and its keys.
macro_rules! section {
    (
        $(#[doc = $doc:literal])*
        $many:ident $header:literal $name:ident {
            $( $(#[doc = $key_doc:literal])* $key:ident: $type:ty = $default:expr, $shape:ident $example:literal; )*
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub(crate) struct $name {
            $( $(#[doc = $key_doc])* pub(crate) $key: $type, )*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $key: $default, )* }
            }
        }

        impl $name {
            /// Its name, keys and words.
            pub(crate) const SECTION: $crate::config::section::Section = $crate::config::section::Section {
                name: $header,
                many: $crate::config::section::$many,
                docs: &[$($doc),*],
                keys: &[$(
                    $crate::config::section::Key {
                        name: stringify!($key),
                        docs: &[$($key_doc),*],
                        example: $example,
                        shape: $crate::config::section::Shape::$shape,
                    },
                )*],
            };
        }
    };
}

pub(crate) const ONE: bool = false;
pub(crate) const MANY: bool = true;

pub(crate) use section;

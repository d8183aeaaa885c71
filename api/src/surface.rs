//! Routes and their description, registered together: what the router serves is what the `OpenAPI`
//! document says, because neither can be added without the other.

use std::collections::BTreeMap;

use axum::{
    Router,
    handler::Handler,
    routing::{MethodFilter, on},
};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ComponentsBuilder, Content, HttpMethod, InfoBuilder, License, ObjectBuilder, OpenApi,
        OpenApiBuilder, Paths, Ref, RefOr, Required, ResponseBuilder, Schema, Tag,
        path::{
            Operation as Documented, OperationBuilder, Parameter, ParameterBuilder, ParameterIn,
        },
        request_body::RequestBodyBuilder,
        schema::{AdditionalProperties, ArrayBuilder, SchemaType, Type},
        security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
    },
};

use crate::{
    Front,
    fields::{Field, Holds},
    problem,
    query::{Holds as Param, Param as Parameters},
    wire,
};

const ID_PATTERN: &str = "^[0-9a-f]{24}$";
const SECURITY: &str = "bearer";

/// The methods that the API knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Method {
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

/// Both verbs of a partial update: the clients disagree about them.
pub(crate) const UPDATE: [Method; 2] = [Method::Put, Method::Patch];

impl Method {
    const fn filter(self) -> MethodFilter {
        match self {
            Self::Get => MethodFilter::GET,
            Self::Post => MethodFilter::POST,
            Self::Put => MethodFilter::PUT,
            Self::Patch => MethodFilter::PATCH,
            Self::Delete => MethodFilter::DELETE,
        }
    }

    const fn documented(self) -> HttpMethod {
        match self {
            Self::Get => HttpMethod::Get,
            Self::Post => HttpMethod::Post,
            Self::Put => HttpMethod::Put,
            Self::Patch => HttpMethod::Patch,
            Self::Delete => HttpMethod::Delete,
        }
    }

    #[cfg(test)]
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// What is around the payload of an answer.
#[derive(Clone, Copy)]
enum Shape {
    Bare,
    Enveloped,
    /// Enveloped, with `metadata` of the page beside the payload.
    Paged,
    /// None: the connection leaves HTTP.
    Socket,
}

/// The body of a request.
#[derive(Clone, Copy)]
enum Takes {
    Nothing,
    /// A JSON object with these fields.
    Fields(&'static [Field]),
    /// A JSON object whose fields the client chooses, with texts in them.
    Map,
}

/// What the document says about one operation.
#[derive(Clone)]
pub(crate) struct Operation {
    id: String,
    tag: &'static str,
    summary: &'static str,
    /// What is said beside the summary, if anything.
    description: Option<&'static str>,
    public: bool,
    versioned: bool,
    params: &'static [Parameters],
    takes: Takes,
    /// The success.
    answer: (u16, RefOr<Schema>),
    /// Another success, enveloped like the first.
    other: Option<(u16, RefOr<Schema>)>,
    shape: Shape,
    media: &'static str,
    schemas: Vec<(String, RefOr<Schema>)>,
}

impl Operation {
    /// An operation of a caller that answers 200 with `null`.
    pub(crate) fn new(id: impl Into<String>, tag: &'static str, summary: &'static str) -> Self {
        let nothing = ObjectBuilder::new().schema_type(SchemaType::Type(Type::Null)).into();
        Self {
            id: id.into(),
            tag,
            summary,
            description: None,
            public: false,
            versioned: false,
            params: &[],
            takes: Takes::Nothing,
            answer: (200, nothing),
            other: None,
            shape: Shape::Enveloped,
            media: "application/json",
            schemas: Vec::new(),
        }
    }

    /// More is to be said about it than the summary.
    pub(crate) fn described(mut self, description: &'static str) -> Self {
        self.description = Some(description);
        self
    }

    /// It needs no credential.
    pub(crate) fn public(mut self) -> Self {
        self.public = true;
        self
    }

    /// It names the version of the document that it changes.
    pub(crate) fn versioned(mut self) -> Self {
        self.versioned = true;
        self
    }

    /// It reads these query parameters.
    pub(crate) fn params(mut self, params: &'static [Parameters]) -> Self {
        self.params = params;
        self
    }

    /// It takes a JSON object with these fields.
    pub(crate) fn takes(mut self, fields: &'static [Field]) -> Self {
        self.takes = Takes::Fields(fields);
        self
    }

    /// It takes a JSON object with fields of the client's choice, whose values are texts.
    pub(crate) fn takes_map(mut self) -> Self {
        self.takes = Takes::Map;
        self
    }

    /// It answers with this payload.
    pub(crate) fn answers<T: ToSchema>(mut self, status: u16) -> Self {
        T::schemas(&mut self.schemas);
        self.schemas.push((T::name().into_owned(), T::schema()));
        self.answer = (status, Ref::from_schema_name(T::name()).into());
        self
    }

    /// It may also answer with this payload.
    pub(crate) fn or_answers<T: ToSchema>(self, status: u16) -> Self {
        let answer = self.answer.clone();
        let mut other = self.answers::<T>(status);
        other.other = Some(std::mem::replace(&mut other.answer, answer));
        other
    }

    /// It answers with a bare list of this payload.
    pub(crate) fn answers_list<T: ToSchema>(self, status: u16) -> Self {
        let mut listing = self.answers::<T>(status);
        let items = ArrayBuilder::new().items(Ref::from_schema_name(T::name()));
        listing.answer = (status, items.into());
        listing
    }

    /// Where its page stands is told beside `data`.
    pub(crate) fn with_metadata(self) -> Self {
        let mut paged = Self { shape: Shape::Paged, ..self };
        paged.schemas.push((wire::Metadata::name().into_owned(), wire::Metadata::schema()));
        paged
    }

    /// It answers with an object without an envelope.
    pub(crate) fn answers_bare(mut self) -> Self {
        self.answer = (200, typed(Type::Object).into());
        self.shape = Shape::Bare;
        self
    }

    /// It answers with server-sent events.
    pub(crate) fn answers_events(self) -> Self {
        self.answers_text("text/event-stream")
    }

    /// It answers with a text of this media type, without an envelope.
    pub(crate) fn answers_text(mut self, media: &'static str) -> Self {
        self.answer = (200, typed(Type::String).into());
        self.shape = Shape::Bare;
        self.media = media;
        self
    }

    /// It answers by leaving HTTP for a `WebSocket`.
    pub(crate) fn answers_socket(mut self) -> Self {
        self.answer.0 = 101;
        self.shape = Shape::Socket;
        self
    }

    /// It answers with an object in another notation than JSON, without an envelope.
    pub(crate) fn answers_bare_as(mut self, media: &'static str) -> Self {
        self.media = media;
        self.answers_bare()
    }

    /// The schema of the body, and whether there must be one.
    fn body(&self) -> Option<(RefOr<Schema>, bool)> {
        match self.takes {
            Takes::Nothing => None,
            Takes::Fields(fields) => {
                Some((document_fields(fields), fields.iter().any(|field| field.required)))
            }
            Takes::Map => Some((RefOr::T(Schema::Object(text_map().build())), false)),
        }
    }

    fn document(&self, path: &str, id: String) -> Documented {
        let in_path = path.split('/').filter_map(|part| {
            let name = part.strip_prefix('{')?.strip_suffix('}')?;
            Some(
                ParameterBuilder::new()
                    .name(name)
                    .parameter_in(ParameterIn::Path)
                    .required(Required::True)
                    .schema(Some(path_schema(name)))
                    .build(),
            )
        });
        let in_head = self.versioned.then(|| {
            ParameterBuilder::new()
                .name("If-Match")
                .parameter_in(ParameterIn::Header)
                .required(Required::True)
                .description(Some(
                    "The etag of the document as it was read; 428 without, 412 stale",
                ))
                .schema(Some(typed(Type::String).pattern(Some("^\"?file:v[0-9]+\"?$"))))
                .build()
        });
        let parameters: Vec<Parameter> =
            in_path.chain(self.params.iter().map(document_param)).chain(in_head).collect();
        let refused = ResponseBuilder::new()
            .description("A refusal; `code` says which")
            .content(
                "application/json",
                Content::new(Some(Ref::from_schema_name(problem::Body::name()))),
            )
            .build();
        let mut operation = OperationBuilder::new()
            .operation_id(Some(id))
            .tag(self.tag)
            .summary(Some(self.summary))
            .description(self.description)
            .parameters(Some(parameters))
            .response("4XX", refused.clone())
            .response("5XX", refused);
        for (status, payload) in std::iter::once(&self.answer).chain(&self.other) {
            let body = match self.shape {
                Shape::Enveloped => Some(envelope(payload.clone()).into()),
                Shape::Paged => Some(
                    envelope(payload.clone())
                        .property("metadata", Ref::from_schema_name(wire::Metadata::name()))
                        .required("metadata")
                        .into(),
                ),
                Shape::Bare => Some(payload.clone()),
                Shape::Socket => None,
            };
            let mut success = ResponseBuilder::new().description("What was asked for");
            if body.is_some() {
                success = success.content(self.media, Content::new(body));
            }
            operation = operation.response(status.to_string(), success.build());
        }
        if let Some((schema, required)) = self.body() {
            let body = RequestBodyBuilder::new()
                .content("application/json", Content::new(Some(schema)))
                .required(Some(if required { Required::True } else { Required::False }))
                .build();
            operation = operation.request_body(Some(body));
        }
        let security = if self.public {
            SecurityRequirement::default()
        } else {
            SecurityRequirement::new(SECURITY, Vec::<String>::new())
        };
        operation.security(security).build()
    }
}

/// The routes so far, and what is said about them.
#[derive(Default)]
pub(crate) struct Surface {
    router: Router<Front>,
    paths: Paths,
    schemas: BTreeMap<String, RefOr<Schema>>,
    #[cfg(test)]
    served: Vec<(&'static str, Method)>,
}

impl Surface {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Serves `operation` with `handler` at every path with every method.
    #[expect(clippy::needless_pass_by_value, reason = "handlers are functions; `&` is noise")]
    pub(crate) fn serve<H, T>(
        mut self,
        methods: &[Method],
        paths: &[&'static str],
        handler: H,
        operation: &Operation,
    ) -> Self
    where
        H: Handler<T, Front> + Clone,
        T: 'static,
    {
        self.schemas.extend(operation.schemas.iter().cloned());
        for (at_path, path) in paths.iter().enumerate() {
            for (at_method, method) in methods.iter().enumerate() {
                // Ids are unique in a document; the first spelling has the plain one.
                let mut id = operation.id.clone();
                if at_path > 0 {
                    id.push_str("_alias");
                }
                if at_method > 0 {
                    id.push_str("_patch");
                }
                let documented = operation.document(path, id);
                self.paths.add_path_operation(path, vec![method.documented()], documented);
                self.router = self.router.route(path, on(method.filter(), handler.clone()));
                #[cfg(test)]
                self.served.push((path, *method));
            }
        }
        self
    }

    /// The routes, and the document as JSON text.
    pub(crate) fn finish(self) -> (Router<Front>, OpenApi) {
        let mut schemas = self.schemas;
        schemas.insert(problem::Body::name().into_owned(), problem::Body::schema());
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("An access token of a login, or a long-lived token `hdy_…`"))
            .build();
        let components = ComponentsBuilder::new()
            .schemas_from_iter(schemas)
            .security_scheme(SECURITY, SecurityScheme::Http(scheme))
            .build();
        let mut licence = License::new("Apache-2.0");
        licence.identifier = Some("Apache-2.0".to_owned());
        let info = InfoBuilder::new()
            .title("Gantry")
            .version(env!("CARGO_PKG_VERSION"))
            .description(Some(
                "Containers with URLs. Every answer is an envelope: `statusCode`, `message` and \
                 `data`, or `statusCode`, `error`, `message`, `code` and perhaps `data`. Every POST \
                 honours `Idempotency-Key`.",
            ))
            .license(Some(licence))
            .build();
        let tags = [
            "Authentication",
            "Users",
            "Auth tokens",
            "Projects",
            "Project permissions",
            "Containers",
            "Environment",
            "Snapshots",
            "Firewall",
            "Network",
            "Storage shares",
            "Proxy permissions",
            "Proxy hooks",
            "Proxy aliases",
            "Edge",
            "Realms",
            "Vault",
            "Events",
            "Servers",
            "Images",
            "Meta",
        ]
        .map(Tag::new);
        let document = OpenApiBuilder::new()
            .info(info)
            .paths(self.paths)
            .components(Some(components))
            .tags(Some(tags))
            .build();
        (self.router, document)
    }

    #[cfg(test)]
    pub(crate) fn served(&self) -> &[(&'static str, Method)] {
        &self.served
    }
}

fn text_map() -> ObjectBuilder {
    typed(Type::Object)
        .additional_properties(Some(RefOr::T(Schema::Object(typed(Type::String).build()))))
}

fn id_schema() -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(Type::String).pattern(Some(ID_PATTERN)).into()
}

/// What a part of a path holds, by its name.
fn path_schema(name: &str) -> RefOr<Schema> {
    let id = matches!(name, "id" | "permission_id" | "share_id" | "hook");
    if id { id_schema() } else { typed(Type::String).into() }
}

fn typed(kind: Type) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(kind)
}

fn envelope(data: RefOr<Schema>) -> ObjectBuilder {
    typed(Type::Object)
        .property("statusCode", typed(Type::Integer))
        .property("message", typed(Type::String))
        .property("data", data)
        .required("statusCode")
        .required("message")
        .required("data")
}

fn document_param(param: &Parameters) -> Parameter {
    let words = |words: &[&str]| typed(Type::String).enum_values(Some(words.iter().copied()));
    let schema: RefOr<Schema> = match param.holds {
        Param::Count { min, max } => {
            typed(Type::Integer).minimum(Some(min)).maximum(Some(max)).into()
        }
        Param::Sort(allowed) | Param::Word(allowed) => words(allowed).into(),
        Param::Flag => typed(Type::Boolean).into(),
        Param::Id => id_schema(),
        Param::Text => typed(Type::String).into(),
        Param::Texts => ArrayBuilder::new().items(typed(Type::String)).into(),
    };
    ParameterBuilder::new()
        .name(param.name)
        .parameter_in(ParameterIn::Query)
        .required(Required::False)
        .description(Some(param.about))
        .schema(Some(schema))
        .build()
}

fn document_fields(fields: &[Field]) -> RefOr<Schema> {
    let mut body =
        typed(Type::Object).additional_properties(Some(AdditionalProperties::FreeForm(false)));
    for field in fields {
        body = body.property(field.name, document_field(field));
        if field.required {
            body = body.required(field.name);
        }
    }
    body.into()
}

fn document_field(field: &Field) -> RefOr<Schema> {
    let of = |kind: Type| {
        let kind = if field.nullable {
            SchemaType::Array(vec![kind, Type::Null])
        } else {
            SchemaType::Type(kind)
        };
        ObjectBuilder::new().schema_type(kind).description(Some(field.about))
    };
    let schema = match field.holds {
        Holds::Text { min, max } => of(Type::String).min_length(Some(min)).max_length(Some(max)),
        Holds::Word(words) => of(Type::String).enum_values(Some(words.iter().copied())),
        Holds::Id => of(Type::String).pattern(Some(ID_PATTERN)),
        Holds::Flag => of(Type::Boolean),
        Holds::Count => of(Type::Integer).minimum(Some(0)).maximum(Some(u32::MAX)),
        Holds::TextMap => of(Type::Object)
            .additional_properties(Some(RefOr::T(Schema::Object(typed(Type::String).build())))),
        Holds::Object => of(Type::Object),
        Holds::Texts => {
            let items = ArrayBuilder::new().items(typed(Type::String));
            return items.description(Some(field.about)).into();
        }
        Holds::Ids => {
            return ArrayBuilder::new().items(id_schema()).description(Some(field.about)).into();
        }
        Holds::Mixed => {
            ObjectBuilder::new().schema_type(SchemaType::AnyValue).description(Some(field.about))
        }
    };
    schema.into()
}

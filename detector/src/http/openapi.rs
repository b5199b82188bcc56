//! What can be asked and changed, described for programs (OpenAPI 3.1). It is made from the routes themselves.

use std::collections::BTreeMap;

use axum::Json;
use utoipa::{
    IntoResponses, Modify, OpenApi, ToSchema as _,
    openapi::{
        self, Components, Content, RefOr, Response, ResponseBuilder,
        security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
    },
};
use utoipa_axum::router::OpenApiRouter;

use super::{api::Problem, routes::described};

/// Who the token of `--token-file` lets in, in the document.
const TOKEN: &str = "token";

/// What holds of all of it.
const ABOUT: &str = "\
Who has which address on the bridges of a runner, who else has it, and what is done about that.

The Unix socket serves everything, over plain HTTP. TCP serves questions only: on loopback over plain HTTP and without a \
token, anywhere else over HTTPS and with a bearer token. Changes are for root, group `dupip` and whoever runs the agent; \
others get 403. Every refusal is a problem of RFC 9457.

Fields are added to answers, never renamed or taken away: pass over those that you do not know. Unknown fields of \
questions are refused.";

#[derive(OpenApi)]
#[openapi(
    info(title = "dupip", description = ABOUT),
    modifiers(&Token),
    components(schemas(Problem)),
    servers((url = "http://127.0.0.1:9477", description = "Questions, from the same machine")),
    tags(
        (name = "health", description = "For probes and Prometheus"),
        (name = "state", description = "What the agent sees and does"),
        (name = "leases", description = "The allocator's book"),
        (name = "changes", description = "Over the Unix socket only"),
    )
)]
struct Whole;

struct Token;

impl Modify for Token {
    fn modify(&self, document: &mut openapi::OpenApi) {
        let scheme = Http::builder()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("Asked for beyond loopback: what the agent's --token-file has"))
            .build();
        document
            .components
            .get_or_insert_with(Components::new)
            .add_security_scheme(TOKEN, SecurityScheme::Http(scheme));
        let with_token = SecurityRequirement::new::<_, [&str; 0], &str>(TOKEN, []);
        document.security = Some(vec![SecurityRequirement::default(), with_token]);
    }
}

/// What any request may get instead of what it asks for.
pub(super) struct Refusal;

impl IntoResponses for Refusal {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let schema = openapi::Ref::from_schema_name(Problem::name());
        let refusal = ResponseBuilder::new()
            .description("Why there is no answer")
            .content("application/problem+json", Content::new(Some(schema)));
        BTreeMap::from([("default".to_owned(), refusal.build().into())])
    }
}

/// What the routes are put into, so that they are described.
pub(super) fn router<S: Clone + Send + Sync + 'static>() -> OpenApiRouter<S> {
    OpenApiRouter::with_openapi(Whole::openapi())
}

/// Everything that the agent answers, as an OpenAPI 3.1 document.
#[must_use]
pub fn document() -> openapi::OpenApi {
    described()
}

/// This document.
#[utoipa::path(
    get, path = "/api/v1/openapi.json", tag = "health",
    responses((status = 200, description = "An OpenAPI 3.1 document", body = Object), Refusal)
)]
pub(super) async fn openapi() -> Json<openapi::OpenApi> {
    Json(document())
}

//! The description says what there is, and what it says is there; the error pages match the codes.

use std::{collections::BTreeSet, path::Path};

use orchestrator::{controller::route::openapi, error::ErrorCode};
use serde_json::{Value, json};

use super::harness::Api;
use crate::tools::python;

#[tokio::test]
async fn every_described_operation_is_served_and_has_responses_and_a_key() {
    let api = Api::start().await;
    let described = api.send(api.http.get(format!("{}/openapi.json", api.url))).await.ok(200);
    assert_eq!(described, serde_json::to_value(openapi()).unwrap());
    let mut names = BTreeSet::new();
    for (path, item) in described["paths"].as_object().unwrap() {
        let address = path.replace("{id}", "x").replace("{domain}", "local").replace("{number}", "1");
        let address = address.replace("{subject}", "x");
        assert!(!address.contains('{'), "{path}");
        for (method, operation) in item.as_object().unwrap() {
            assert!(matches!(method.as_str(), "get" | "post"), "{method} {path}");
            assert!(names.insert(operation["operationId"].as_str().unwrap().to_owned()), "{path}");
            assert!(operation["summary"].is_string() || operation["description"].is_string(), "{path}");
            let responses = operation["responses"].as_object().unwrap();
            assert!(responses.keys().any(|code| code.starts_with('2')), "{method} {path}");
            assert!(responses.contains_key("default"), "{method} {path}");
            let open = operation["security"] == json!([{}]);
            let request = if method == "get" {
                api.http.get(format!("{}{address}", api.url))
            } else {
                let keyed = operation["parameters"].as_array().unwrap();
                assert!(keyed.iter().any(|p| p["name"] == "Idempotency-Key"), "{path}");
                api.http.post(format!("{}{address}", api.url))
            };
            let answer = api.send(request).await;
            if open && path.contains('{') {
                answer.problem(404, "not_found", None);
            } else if open {
                assert!(answer.status < 300, "{path}");
            } else {
                // Ids are looked at before keys in a few places; neither is a missing route.
                assert!(matches!(answer.status, 401 | 404), "{method} {path}: {}", answer.body);
                assert_ne!(answer.body["detail"], "there is nothing at this address; see /docs", "{path}");
            }
        }
    }
    assert!(names.len() > 50, "{}", names.len());
}

#[test]
fn every_reference_of_the_description_leads_somewhere() {
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(reference)) = map.get("$ref") {
                    found.insert(reference.clone());
                }
                map.values().for_each(|v| references(v, found));
            }
            Value::Array(all) => all.iter().for_each(|v| references(v, found)),
            _ => {}
        }
    }
    let described = serde_json::to_value(openapi()).unwrap();
    let mut found = BTreeSet::new();
    references(&described, &mut found);
    assert!(!found.is_empty());
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(described.pointer(pointer).is_some(), "{reference}");
    }
}

#[test]
fn every_operation_describes_what_it_answers() {
    let described = serde_json::to_value(openapi()).unwrap();
    let resolve = |response: &Value| match response["$ref"].as_str() {
        Some(reference) => described.pointer(reference.strip_prefix('#').unwrap()).unwrap().clone(),
        None => response.clone(),
    };
    for (path, item) in described["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let responses = operation["responses"].as_object().unwrap();
            for (status, response) in responses {
                let response = resolve(response);
                let text = response["description"].as_str().unwrap_or_default();
                assert!(!text.is_empty(), "{method} {path} {status}");
                let kinds = response["content"].as_object().unwrap();
                let is_report = path == "/health/ready";
                assert_eq!(
                    kinds.contains_key("application/problem+json"),
                    !(status.starts_with('2') || is_report && status == "503"),
                    "{method} {path} {status}"
                );
            }
            let open = operation["security"] == json!([{}]);
            for (status, wanted) in [
                ("400", true),
                ("401", !open),
                ("403", !open),
                ("429", !open),
                ("404", path.contains('{')),
                ("409", method == "post"),
                ("413", method == "post"),
                ("415", method == "post"),
                ("422", method == "post"),
                ("500", true),
            ] {
                assert_eq!(responses.contains_key(status), wanted, "{method} {path} {status}");
            }
        }
    }
    for (name, schema) in described["components"]["schemas"].as_object().unwrap() {
        if let Some(entry) = name.strip_prefix("PageView_") {
            let items = &schema["properties"]["items"]["items"]["$ref"];
            assert_eq!(*items, format!("#/components/schemas/{entry}"), "{name}");
        }
    }
}

#[test]
fn an_independent_tool_finds_the_description_valid() {
    let Some(python) = python() else { return };
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), serde_json::to_string(&openapi()).unwrap()).unwrap();
    let script = "import json, sys\n\
         from openapi_spec_validator import validate\n\
         validate(json.load(open(sys.argv[1])))";
    let output = std::process::Command::new(python).args(["-c", script]).arg(file.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn routes_are_only_made_where_they_are_described() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/controller/route");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("docs.rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(!text.contains(".route("), "{} makes a route by hand", path.display());
        }
    }
}

#[tokio::test]
async fn the_page_needs_nothing_from_outside() {
    let api = Api::start().await;
    let get = |path: &str| api.send(api.http.get(format!("{}{path}", api.url)));
    let moved = get("/docs").await;
    assert!(matches!(moved.status, 200 | 303 | 307 | 308), "{}", moved.status);
    let page = get("/docs/").await.ok(200);
    let page = page.as_str().unwrap();
    assert!(!page.contains("http://") && !page.contains("https://"), "{page}");
    let script = get("/docs/swagger-initializer.js").await.ok(200);
    assert!(script.as_str().unwrap().contains("/openapi.json"));
    get("/docs/swagger-ui-bundle.js").await.ok(200);
}

#[tokio::test]
async fn every_code_has_its_page_and_every_page_a_code() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors");
    let pages: BTreeSet<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().trim_end_matches(".md").to_owned())
        .collect();
    let codes: BTreeSet<String> = ErrorCode::ALL.iter().map(|code| code.as_str().to_owned()).collect();
    assert_eq!(pages, codes);
    let api = Api::start().await;
    for code in ErrorCode::ALL {
        let page = api.send(api.http.get(format!("{}/docs/errors/{}", api.url, code.as_str()))).await.ok(200);
        assert!(page.as_str().unwrap().contains(code.title()), "{code:?}");
    }
    api.send(api.http.get(format!("{}/docs/errors/odd", api.url))).await.problem(404, "not_found", None);
}

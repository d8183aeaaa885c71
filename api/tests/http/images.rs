//! Images: taking, rating, ordering by what others say, icons.

use gantry_model::container::ImageName;
use serde_json::{Value, json};

use crate::lab::{Ask, Lab, PASSWORD, Reply};

async fn call(lab: &Lab, token: &str, method: &str, path: &str, body: &Value) -> Reply {
    let ask = Ask::new(method, path).by(token);
    lab.send(if body.is_null() { ask } else { ask.body(body) }).await
}

async fn aliases(lab: &Lab, token: &str, path: &str) -> Vec<String> {
    let reply = call(lab, token, "GET", path, &Value::Null).await;
    assert_eq!(reply.status, 200, "{path}: {}", reply.text);
    let images = reply.json["data"]["images"].as_array().unwrap().iter();
    images.map(|image| image["alias"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_are_taken_and_rated_by_each_user_for_all() {
    let lab = Lab::start().await;
    let (alice, _) = lab.alice().await;
    let bob = lab.login("bob", PASSWORD).await;
    let listed = call(&lab, &alice, "GET", "/api/v1/images/public", &Value::Null).await;
    let images = &listed.json["data"]["images"];
    assert!(images[0]["added_date"].is_string(), "{}", listed.text);
    assert_eq!(
        (&images[0]["average_rating"], &images[0]["rating_count"]),
        (&json!(0.0), &json!(0))
    );
    let ids: Vec<&str> =
        images.as_array().unwrap().iter().map(|image| image["id"].as_str().unwrap()).collect();
    let [twelve, thirteen] = ids[..] else { panic!("{ids:?}") };

    let own = "/api/v1/images/user";
    assert!(aliases(&lab, &alice, own).await.is_empty());
    for image in [thirteen, thirteen, twelve] {
        let path = format!("/api/v1/images/import/{image}");
        let taken = call(&lab, &alice, "POST", &path, &Value::Null).await;
        assert_eq!((taken.status.as_u16(), &taken.json["data"]), (200, &json!({})));
    }
    assert_eq!(
        aliases(&lab, &alice, &format!("{own}?sort_by=alias&sort_order=asc")).await,
        ["debian/12", "debian/13"]
    );
    assert_eq!(aliases(&lab, &alice, &format!("{own}?limit=1&page=2")).await.len(), 1);
    assert!(aliases(&lab, &bob, own).await.is_empty(), "lists are each user's");

    let rate = format!("/api/v1/images/rate/{thirteen}");
    for (who, rating, average, count) in
        [(&alice, 5, 5.0, 1), (&bob, 0, 2.5, 2), (&alice, 1, 0.5, 2), (&alice, 4, 2.0, 2)]
    {
        let rated = call(&lab, who, "POST", &rate, &json!({ "rating": rating })).await;
        let want =
            json!({ "new_rating": rating, "average_rating": average, "rating_count": count });
        assert_eq!((rated.status.as_u16(), &rated.json["data"]), (200, &want), "{}", rated.text);
    }
    let mine = call(&lab, &alice, "GET", own, &Value::Null).await;
    let of = |id: &str| {
        let images = mine.json["data"]["images"].as_array().unwrap();
        images.iter().find(|image| image["id"] == id).unwrap().clone()
    };
    assert_eq!(
        (&of(thirteen)["user_rating"], &of(thirteen)["has_rated"]),
        (&json!(4), &json!(true))
    );
    assert_eq!(of(thirteen)["average_rating"], 2.0);
    assert_eq!(
        (&of(twelve)["user_rating"], &of(twelve)["has_rated"]),
        (&json!(null), &json!(false))
    );

    let public = "/api/v1/images/public";
    for (query, want) in [
        ("sort_by=rating", vec!["debian/12", "debian/13"]),
        ("sort_by=rating&sort_order=desc", vec!["debian/13", "debian/12"]),
        ("sort_by=added_date", vec!["debian/12", "debian/13"]),
        ("min_rating=1", vec!["debian/13"]),
        ("max_rating=1.5", vec!["debian/12"]),
        ("min_price=0&max_price=0", vec!["debian/12", "debian/13"]),
        ("min_price=1", vec![]),
    ] {
        assert_eq!(aliases(&lab, &bob, &format!("{public}?{query}")).await, want, "{query}");
    }
    for (query, field) in [("max_rating=6", "max_rating"), ("min_price=cheap", "min_price")] {
        let reply = call(&lab, &bob, "GET", &format!("{public}?{query}"), &Value::Null).await;
        assert_eq!(reply.status, 400, "{}", reply.text);
        assert_eq!(reply.json["data"][0]["field"], field, "{}", reply.text);
    }
}

#[tokio::test]
async fn what_is_wrong_with_taking_and_rating_is_said() {
    let lab = Lab::start().await;
    let (alice, _) = lab.alice().await;
    let listed = call(&lab, &alice, "GET", "/api/v1/images/public", &Value::Null).await;
    let id = listed.json["data"]["images"][0]["id"].as_str().unwrap();
    let none = "abcdef0123456789abcdef01";
    for (path, body, status) in [
        (format!("import/{none}"), Value::Null, 404),
        (format!("rate/{none}"), json!({ "rating": 3 }), 404),
        (format!("rate/{id}"), json!({ "rating": 6 }), 400),
        (format!("rate/{id}"), json!({ "rating": 300 }), 400),
        (format!("rate/{id}"), json!({ "rating": -1 }), 400),
        (format!("rate/{id}"), json!({}), 400),
        (format!("import/{id}"), json!({ "price": 1 }), 400),
        (format!("purchase/{id}"), Value::Null, 501),
    ] {
        let reply = call(&lab, &alice, "POST", &format!("/api/v1/images/{path}"), &body).await;
        assert_eq!(reply.status, status, "{path} {body}: {}", reply.text);
    }
    let body = json!({ "alias": "looks", "permissions": { "projects": { "read": true } } });
    let made = call(&lab, &alice, "POST", "/api/v1/auth/tokens", &body).await;
    let token = made.json["data"]["token"].as_str().unwrap();
    for (method, path, body) in [
        ("GET", "user".to_owned(), Value::Null),
        ("POST", format!("import/{id}"), Value::Null),
        ("POST", format!("rate/{id}"), json!({ "rating": 3 })),
    ] {
        let reply = call(&lab, token, method, &format!("/api/v1/images/{path}"), &body).await;
        assert_eq!(reply.status, 403, "{path}: {}", reply.text);
    }
}

#[tokio::test]
async fn every_image_has_an_icon() {
    let lab = Lab::start().await;
    let (alice, _) = lab.alice().await;
    let listed = call(&lab, &alice, "GET", "/api/v1/images/public", &Value::Null).await;
    let images = &listed.json["data"]["images"];
    let icon = b"\x89PNG\r\n\x1a\nours".to_vec();
    lab.world.set_icon(ImageName::parse("image", "debian/13").unwrap(), icon.clone());
    let look = async |path: &str| {
        let reply = lab.send(Ask::new("GET", path)).await;
        assert_eq!(reply.status, 200, "without a credential: {path}");
        assert_eq!(reply.headers["content-type"], "image/png");
        assert!(reply.text.contains("PNG"), "{path}");
        reply.text
    };
    let ours = look(images[1]["icon_url"].as_str().unwrap()).await;
    assert!(ours.ends_with("ours"), "{ours}");
    let placeholder = look(images[0]["icon_url"].as_str().unwrap()).await;
    assert!(placeholder.contains("IEND"), "a whole picture");
    assert_eq!(look("/api/v1/images/abcdef0123456789abcdef01/icon").await, placeholder);
}

//! The resolver that custom hostnames are proven with, against a server of a few names.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use gantry_control::{DnsNames, Names};
use hickory_resolver::proto::{
    op::{Message, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, AAAA, CNAME, TXT},
    },
};

/// What the server knows of a name; nothing of names that do not exist.
fn records(name: &str, kind: RecordType) -> Option<Vec<RData>> {
    let target = || RData::CNAME(CNAME("Shop.Containers.example.".parse().unwrap()));
    let all = match name {
        "www.customer.example." => vec![target()],
        "_gantry.customer.example." => {
            let two = vec!["shop.".to_owned(), "containers.example".to_owned()];
            vec![RData::TXT(TXT::new(vec!["v=other".to_owned()])), RData::TXT(TXT::new(two))]
        }
        "shop.containers.example." => vec![
            RData::A(A("192.0.2.1".parse().unwrap())),
            RData::AAAA(AAAA("2001:db8::1".parse().unwrap())),
        ],
        _ => return None,
    };
    // A CNAME record stands for whatever is asked for.
    let is_asked = |data: &RData| [kind, RecordType::CNAME].contains(&data.record_type());
    Some(all.into_iter().filter(is_asked).collect())
}

fn answer(question: &[u8]) -> Vec<u8> {
    let mut message = Message::from_vec(question).unwrap().into_response();
    let query = message.queries[0].clone();
    let mut name: Name = query.name().clone();
    let name_of = |name: &Name| name.to_ascii().to_lowercase();
    if name_of(&name) == "broken.example." {
        message.metadata.response_code = ResponseCode::ServFail;
        return message.to_vec().unwrap();
    }
    loop {
        let Some(found) = records(&name_of(&name), query.query_type()) else {
            message.metadata.response_code = ResponseCode::NXDomain;
            break;
        };
        let next = found
            .iter()
            .find_map(|data| if let RData::CNAME(to) = data { Some(to.0.clone()) } else { None });
        message
            .add_answers(found.into_iter().map(|data| Record::from_rdata(name.clone(), 60, data)));
        match next {
            Some(next) if query.query_type() != RecordType::CNAME => name = next,
            Some(_) | None => break,
        }
    }
    message.to_vec().unwrap()
}

/// Answers until the process ends.
fn serve() -> SocketAddr {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            socket.send_to(&answer(&buffer[..length]), from).unwrap();
        }
    });
    address
}

#[tokio::test]
async fn names_are_looked_up_as_they_stand_in_the_system() {
    let names = DnsNames::of_server(serve());
    let canonical = async |name: &str| names.canonical(name).await.unwrap();
    assert_eq!(canonical("www.customer.example").await.unwrap(), "shop.containers.example");
    assert_eq!(canonical("shop.containers.example").await, None, "there, but not as this");
    assert_eq!(canonical("nowhere.example").await, None);
    let texts = names.texts("_gantry.customer.example").await.unwrap();
    assert_eq!(texts, ["v=other", "shop.containers.example"]);
    assert!(names.texts("nowhere.example").await.unwrap().is_empty());
    let own = names.addresses("shop.containers.example").await.unwrap();
    let text: Vec<_> = own.iter().map(ToString::to_string).collect();
    assert_eq!(text, ["192.0.2.1", "2001:db8::1"]);
    assert_eq!(names.addresses("www.customer.example").await.unwrap(), own, "by its CNAME");
    assert!(names.addresses("nowhere.example").await.unwrap().is_empty());
    // What is not answered is not absent.
    names.canonical("broken.example").await.unwrap_err();
    names.texts("broken.example").await.unwrap_err();
    names.addresses("broken.example").await.unwrap_err();
}

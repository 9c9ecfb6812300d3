//! Terminals that may be come back to: who has their tokens, and how many of them are without anybody.
//!
//! Known on the replica that holds them, and nowhere else: a token says which that was.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::Back;
use crate::apiserver::failure::Failure;
use crate::auth::Caller;
use crate::clock::Entropy;
use crate::gateway::link::InstanceUid;
use crate::live::Ask;

/// Terminals without a client, of one person and of all.
const MOST_OF_ONE: usize = 16;
const MOST: usize = 250;
/// A token: which replica it is of, and a secret.
const HOLDER: usize = 8;
const TOKEN: usize = HOLDER + 32;

/// All of this replica.
pub(crate) struct Returns {
    holder: [u8; HOLDER],
    all: Mutex<All>,
}

#[derive(Default)]
struct All {
    /// By the hash of its token.
    open: HashMap<[u8; 32], Entry>,
    /// How many are without a client, by whose they are.
    left: HashMap<Arc<str>, usize>,
}

struct Entry {
    whose: Whose,
    session: Uuid,
    comes: mpsc::Sender<Back>,
}

/// Whose a terminal is, and on what: nobody else comes back to it, and by no other path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Whose {
    user: Arc<str>,
    uid: Option<Arc<str>>,
    impersonator: Option<(Arc<str>, Option<Arc<str>>)>,
    instance: InstanceUid,
    object: Arc<str>,
    does: Option<&'static str>,
}

impl Whose {
    pub fn of(ask: &Ask) -> Self {
        let Caller { user, uid, impersonator, .. } = &ask.call.caller;
        Self {
            user: Arc::clone(user),
            uid: uid.clone(),
            impersonator: impersonator.as_ref().map(|real| (Arc::clone(&real.user), real.uid.clone())),
            instance: ask.instance.uid,
            object: Arc::clone(&ask.object),
            does: ask.call.subresource,
        }
    }
}

impl Returns {
    pub fn new(entropy: &dyn Entropy) -> Self {
        let mut holder = [0; HOLDER];
        entropy.fill(&mut holder);
        Self { holder, all: Mutex::default() }
    }

    /// A place for a terminal, and the token to it, which is kept nowhere.
    pub(super) fn open(
        self: &Arc<Self>,
        entropy: &dyn Entropy,
        whose: Whose,
        session: Uuid,
    ) -> (Place, String) {
        let mut token = [0; TOKEN];
        entropy.fill(&mut token);
        for (byte, ours) in token.iter_mut().zip(self.holder) {
            *byte = ours;
        }
        let hash = hash(&token);
        // One is taken over at a time.
        let (sender, comes) = mpsc::channel(1);
        let user = Arc::clone(&whose.user);
        self.all.lock().open.insert(hash, Entry { whose, session, comes: sender });
        (Place { returns: Arc::clone(self), hash, user, comes }, URL_SAFE_NO_PAD.encode(token))
    }

    /// The terminal of that token, for who has it: its session, and where to come back to.
    pub(super) fn find(&self, token: &str, whose: &Whose) -> Result<(Uuid, mpsc::Sender<Back>), Failure> {
        let token = URL_SAFE_NO_PAD.decode(token).ok().filter(|token| token.len() == TOKEN);
        let token = token.ok_or_else(gone)?;
        if !token.starts_with(&self.holder) {
            return Err(Failure::unavailable(
                "another replica of this controller holds this session, or this one before it was restarted: come back to that one, or open \
                 it again",
            ));
        }
        let all = self.all.lock();
        // Whose it is not is told what they would be told of none.
        let entry = all.open.get(&hash(&token)).filter(|entry| entry.whose == *whose).ok_or_else(gone)?;
        Ok((entry.session, entry.comes.clone()))
    }
}

/// That there is nothing to come back to.
pub(super) fn gone() -> Failure {
    Failure::expired("this session has ended, or is not yours: open it again", None)
}

fn hash(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}

/// One terminal's. Its token is worth nothing once this is dropped.
pub(super) struct Place {
    returns: Arc<Returns>,
    hash: [u8; 32],
    user: Arc<str>,
    comes: mpsc::Receiver<Back>,
}

impl Place {
    /// Whoever comes back, as often as they do.
    pub async fn comes(&mut self) -> Back {
        match self.comes.recv().await {
            Some(back) => back,
            None => std::future::pending().await,
        }
    }

    /// Counts it as left by its client for as long as that is held; `None` where too many are.
    pub fn is_left(&self) -> Option<Left> {
        let mut all = self.returns.all.lock();
        let mine = all.left.get(&self.user).copied().unwrap_or_default();
        if mine >= MOST_OF_ONE || all.left.values().sum::<usize>() >= MOST {
            return None;
        }
        all.left.insert(Arc::clone(&self.user), mine + 1);
        Some(Left { returns: Arc::clone(&self.returns), user: Arc::clone(&self.user) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.returns.all.lock().open.remove(&self.hash);
    }
}

/// See [`Place::is_left`].
pub(super) struct Left {
    returns: Arc<Returns>,
    user: Arc<str>,
}

impl Drop for Left {
    fn drop(&mut self) {
        let mut all = self.returns.all.lock();
        if let Some(count) = all.left.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                all.left.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemEntropy;

    fn whose(user: &str) -> Whose {
        Whose {
            user: user.into(),
            uid: None,
            impersonator: None,
            instance: InstanceUid(Uuid::nil()),
            object: "web".into(),
            does: Some("exec"),
        }
    }

    fn returns() -> Arc<Returns> {
        Arc::new(Returns::new(&SystemEntropy))
    }

    fn refused(returns: &Returns, token: &str, whose: &Whose) -> String {
        returns.find(token, whose).expect_err("it is refused").to_string()
    }

    #[test]
    fn a_token_is_good_for_whose_it_is_on_what_it_is_until_its_end() {
        let returns = returns();
        let (place, token) = returns.open(&SystemEntropy, whose("ada"), Uuid::nil());

        assert!(returns.find(&token, &whose("ada")).is_ok());
        let gone = gone().to_string();
        for other in [
            whose("eve"),
            Whose { uid: Some("1".into()), ..whose("ada") },
            Whose { impersonator: Some(("eve".into(), None)), ..whose("ada") },
            Whose { instance: InstanceUid(Uuid::max()), ..whose("ada") },
            Whose { object: "db".into(), ..whose("ada") },
            Whose { does: Some("attach"), ..whose("ada") },
        ] {
            assert_eq!(refused(&returns, &token, &other), gone, "{other:?}");
        }
        for nonsense in ["", "x", "!", &token[1..], &format!("{token}AAAA")] {
            assert_eq!(refused(&returns, nonsense, &whose("ada")), gone, "{nonsense}");
        }
        drop(place);
        assert_eq!(refused(&returns, &token, &whose("ada")), gone);
    }

    #[test]
    fn a_token_of_another_replica_is_told_from_one_that_is_over() {
        let (_place, token) = returns().open(&SystemEntropy, whose("ada"), Uuid::nil());

        assert!(refused(&returns(), &token, &whose("ada")).contains("another replica"));
    }

    #[test]
    fn t25_so_many_terminals_of_one_person_and_of_all_are_without_a_client_and_no_more() {
        let returns = returns();
        let place = |user: &str| returns.open(&SystemEntropy, whose(user), Uuid::nil()).0;
        let ada = place("ada");
        let mut of_ada: Vec<Left> = (0..MOST_OF_ONE).map_while(|_| ada.is_left()).collect();
        assert_eq!((of_ada.len(), ada.is_left().is_none()), (MOST_OF_ONE, true));
        of_ada.pop();
        of_ada.extend(ada.is_left());
        assert_eq!(of_ada.len(), MOST_OF_ONE);

        let others: Vec<Place> = (0..MOST).map(|number| place(&format!("user-{number}"))).collect();
        let left: Vec<Left> = others.iter().map_while(Place::is_left).collect();
        assert_eq!(left.len(), MOST - MOST_OF_ONE);
        drop((left, of_ada));
        assert!(returns.all.lock().left.is_empty());
    }
}

//! Who may do what: judged by what the kernel says of the peer, never by what the peer says.

use std::ffi::CString;

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

/// What a user may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rights {
    /// Nothing.
    Nothing,
    /// Look.
    Read,
    /// Everything.
    All,
}

/// A user of the system, as the socket gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    /// The user.
    pub uid: u32,
    /// The user's group at the time of connecting.
    pub gid: u32,
}

/// The group whose members may look; none: root alone may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readers(Option<(String, Gid)>);

impl Readers {
    /// The members of this group.
    ///
    /// # Errors
    /// When there is no such group, in a sentence.
    pub fn of(group: Option<&str>) -> Result<Self, String> {
        let Some(name) = group else { return Ok(Readers(None)) };
        match Group::from_name(name) {
            Ok(Some(group)) => Ok(Readers(Some((group.name, group.gid)))),
            Ok(None) => {
                Err(format!("this machine has no group `{name}`; make it (groupadd --system {name}), or name another"))
            }
            Err(error) => Err(format!("the group `{name}` can't be looked up: {error}")),
        }
    }

    fn rights(&self, peer: Peer) -> Rights {
        match &self.0 {
            _ if peer.uid == 0 => Rights::All,
            Some((_, group)) if group.as_raw() == peer.gid || groups(peer.uid).contains(group) => Rights::Read,
            _ => Rights::Nothing,
        }
    }

    /// Lets `peer` do something; looking needs less than the rest. Asks the system's user database, which may take its time.
    ///
    /// # Errors
    /// Why not, and what to do, each in a sentence.
    pub fn admit(&self, peer: Peer, looking: bool) -> Result<(), (String, String)> {
        let rights = self.rights(peer);
        if rights == Rights::All || (looking && rights == Rights::Read) {
            return Ok(());
        }
        let name = user(peer.uid).map_or_else(|| format!("user {}", peer.uid), |user| user.name);
        Err(match &self.0 {
            _ if rights == Rights::Read => {
                (format!("only root may change anything; {name} may look"), "use sudo".to_owned())
            }
            Some((group, _)) => (
                format!("{name} is not in the group `{group}` (control.group), whose members may look"),
                format!("use sudo, or let root run: usermod -aG {group} {name}"),
            ),
            None => (
                format!("only root may use this socket, and {name} is not root"),
                "use sudo, or name a group whose members may look as control.group in the configuration".to_owned(),
            ),
        })
    }
}

fn user(uid: u32) -> Option<User> {
    User::from_uid(Uid::from_raw(uid)).ok().flatten()
}

/// The groups that the user database has for a user.
fn groups(uid: u32) -> Vec<Gid> {
    let groups = user(uid).and_then(|user| getgrouplist(&CString::new(user.name).ok()?, user.gid).ok());
    groups.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: Peer = Peer { uid: 65534, gid: 65534 };

    #[test]
    fn root_may_all_others_by_their_groups() {
        let readers = Readers::of(Some("root")).unwrap();
        assert_eq!(readers.rights(Peer { uid: 0, gid: 0 }), Rights::All);
        assert_eq!(readers.rights(NOBODY), Rights::Nothing);
        assert_eq!(readers.rights(Peer { gid: 0, ..NOBODY }), Rights::Read, "by the group it runs as");
        // Debian's `nobody` is in `nogroup`, whatever group it runs as.
        assert_eq!(Readers::of(Some("nogroup")).unwrap().rights(Peer { gid: 1, ..NOBODY }), Rights::Read);
        assert_eq!(Readers::of(None).unwrap().rights(Peer { gid: 0, ..NOBODY }), Rights::Nothing);
        assert!(Readers::of(Some("no-such-group")).unwrap_err().contains("groupadd --system no-such-group"));
    }
}

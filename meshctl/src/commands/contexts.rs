//! `meshctl context`: saved connections.

use anyhow::bail;

use crate::{
    cli::{Connection, Context, Format},
    context::{Contexts, Saved},
    output::{self, Rows, line},
};

pub(super) fn run(connection: &Connection, command: Context) -> anyhow::Result<()> {
    let mut saved = Contexts::load()?;
    match command {
        Context::List => return list(&saved),
        Context::Set { name } => {
            let Some(addr) = connection.addr.clone() else {
                bail!("give --addr (or set MESH_ADDR): it is what a connection is saved for")
            };
            let cacert = connection.cacert.as_ref().map(std::path::absolute).transpose()?;
            saved.contexts.insert(name.clone(), Saved { addr, token: connection.token.clone(), cacert });
            line(&format!("{name} is in use"))?;
            saved.current = Some(name);
        }
        Context::Use { name } => {
            if !saved.contexts.contains_key(&name) {
                bail!("no saved connection {name:?}; `meshctl context list` shows them");
            }
            line(&format!("{name} is in use"))?;
            saved.current = Some(name);
        }
        Context::Delete { name } => {
            if saved.contexts.remove(&name).is_none() {
                bail!("no saved connection {name:?}; `meshctl context list` shows them");
            }
            saved.current = saved.current.filter(|current| *current != name);
            line(&format!("{name} is forgotten"))?;
        }
    }
    saved.save()
}

fn list(saved: &Contexts) -> anyhow::Result<()> {
    let current = |name: &String| if saved.current.as_ref() == Some(name) { "*" } else { "" };
    let rows = saved
        .contexts
        .iter()
        .map(|(name, context)| vec![current(name).to_owned(), name.clone(), context.addr.clone()])
        .collect();
    output::print(Format::Table, &(), || Rows { header: vec!["current", "name", "addr"], rows })
}

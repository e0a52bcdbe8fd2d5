//! The pages of docs/terraform, written from what Terraform is told: a page for each resource and data source, with an
//! example that a test applies.

use std::{fmt::Write, io, path::Path};

use crate::{
    data,
    schema::{Field, Given, ResourceType, Type, resources},
    settings,
};

mod examples;

/// A page, by its file's name.
struct Page {
    file: String,
    text: String,
}

/// Writes all pages into `folder`.
///
/// # Errors
/// If it takes no files.
pub(crate) fn write(folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    pages().iter().try_for_each(|page| std::fs::write(folder.join(&page.file), &page.text))
}

fn pages() -> Vec<Page> {
    let resources = resources();
    let mut pages: Vec<_> = resources.iter().map(resource).collect();
    let sources = data::sources();
    pages.extend(sources.iter().map(|source| Page {
        file: format!("data-{}.md", source.name),
        text: page(
            &format!("Data source {}", source.name),
            &source.about,
            &format!("data-{}", source.name),
            "",
            &source.fields,
        ),
    }));
    let links: String = pages.iter().map(link).collect();
    pages.push(Page { file: "README.md".to_owned(), text: index(&links) });
    pages
}

fn resource(resource: &ResourceType) -> Page {
    let kind = resource.kind;
    let by = if kind.namespaced() { "NAMESPACE/NAME" } else { "NAME" };
    let id = examples::id(examples::named(&resource.name));
    let renewed = if kind.has_secret() {
        "\nWhat it says cannot be changed, since its secret is out: another `spec` makes another token.\n"
    } else {
        ""
    };
    let import = format!(
        "{renewed}\n## Import\n\nBy `{by}`:\n\n```sh\nterraform import {}.example {id}\n```\n",
        resource.name
    );
    let text =
        page(&format!("Resource {}", resource.name), kind.about(), &resource.name, &import, &resource.fields);
    Page { file: format!("{}.md", resource.name), text }
}

fn page(title: &str, about: &str, example: &str, further: &str, fields: &[Field]) -> String {
    let example = examples::named(example);
    let mut text =
        format!("# {title}\n\n{about}\n\n```terraform\n{example}```\n{further}\n## Attributes\n\n");
    list(fields, 0, &mut text);
    text
}

fn index(links: &str) -> String {
    let mut text = format!("{}\n## Settings\n\n", examples::INTRODUCTION);
    list(&settings::fields(), 0, &mut text);
    format!("{text}\n## Pages\n\n{links}")
}

fn link(page: &Page) -> String {
    let name = page.file.trim_end_matches(".md");
    format!("- [{}]({})\n", name.replace("data-", "data "), page.file)
}

fn list(fields: &[Field], depth: usize, text: &mut String) {
    for field in fields {
        let given = match field.given {
            Given::Required => ", required",
            Given::OptionalSecret => ", sensitive",
            Given::Secret => ", computed, sensitive",
            // All of a data source is: it is said once, by its being one.
            Given::Computed | Given::Optional => "",
        };
        let (indent, words) = ("  ".repeat(depth), field.description().replace('\n', " "));
        writeln!(text, "{indent}- `{}` ({}{given}): {words}", field.name, said(&field.of))
            .expect("memory takes it");
        list(field.of.fields(), depth + 1, text);
    }
}

fn said(of: &Type) -> String {
    match of {
        Type::Bool => "true or false".to_owned(),
        Type::Number => "number".to_owned(),
        Type::Text => "text".to_owned(),
        Type::Record(_) => "object".to_owned(),
        Type::List(of) => format!("list of {}", plural(of)),
        Type::Map(of) => format!("map of {}", plural(of)),
    }
}

fn plural(of: &Type) -> String {
    match of {
        Type::Bool => said(of),
        _ => format!("{}s", said(of)),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs};

    use super::*;

    #[test]
    fn the_pages_are_as_the_schemas_say() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/terraform");
        let written: BTreeMap<_, _> = fs::read_dir(&folder)
            .expect("docs/terraform")
            .map(|entry| entry.expect("an entry").path())
            .map(|path| {
                (path.file_name().expect("a name").to_owned(), fs::read_to_string(&path).expect("UTF-8"))
            })
            .collect();
        let wanted: BTreeMap<_, _> = pages().into_iter().map(|page| (page.file.into(), page.text)).collect();
        assert!(
            written == wanted,
            "docs/terraform is stale: cargo run -p terraform-provider-mesh -- docs docs/terraform (and remove what is not a page)"
        );
    }
}

//! What README.md says of the catalogue.

use wgloss::losses::CATALOGUE;

/// Names between commas, or none.
fn names(cell: &str) -> Vec<&str> {
    cell.split(',').map(str::trim).filter(|name| !name.is_empty()).collect()
}

#[test]
fn the_table_of_losses_is_the_catalogue() {
    let readme = include_str!("../../README.md");
    let section = readme.split("\n## ").find(|section| section.starts_with("Losses")).expect("a section on losses");
    let table = section.lines().filter(|line| line.starts_with("| `"));
    let rows: Vec<Vec<&str>> = table.map(|line| line.split('|').map(str::trim).collect()).collect();
    let listed: Vec<&str> = rows.iter().map(|row| row[1].trim_matches('`').split('(').next().unwrap()).collect();
    assert_eq!(listed, CATALOGUE.iter().map(|entry| entry.name).collect::<Vec<_>>(), "in the order of the catalogue");
    for (row, entry) in rows.iter().zip(CATALOGUE) {
        let loss = (entry.make)();
        let written =
            |spec: wgloss::loss::InputSpec| if spec.optional { format!("*{}*", spec.name) } else { spec.name };
        let inputs: Vec<String> = loss.inputs().into_iter().map(written).collect();
        assert_eq!(names(row[2]), inputs, "inputs of {}", entry.name);
        let options: Vec<&str> = loss.options().iter().map(|option| option.name.as_str()).collect();
        assert_eq!(names(row[3]), options, "options of {}", entry.name);
        // What the function takes are options too.
        let arguments = row[1].trim_matches(|c| c == '`' || c == ')').split_once('(').map_or("", |(_, list)| list);
        assert!(names(arguments).iter().all(|name| options.contains(name)), "arguments of {}", entry.name);
    }
}

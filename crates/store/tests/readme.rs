//! The README shows code that runs: the example program, to the letter.

#[test]
fn the_readme_shows_the_example_as_it_is() {
    let readme = include_str!("../../../README.md");
    let example = include_str!("../examples/hello.rs");
    let (_, code) = example.split_once("\n\n").expect("a comment, then the program");
    assert!(readme.contains(code), "README.md and crates/store/examples/hello.rs differ");
}

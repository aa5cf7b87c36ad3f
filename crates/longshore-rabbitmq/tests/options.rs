//! The table of options on the backend's page is the one of the code.

use longshore_driver::options;

#[test]
fn the_page_shows_the_options_as_the_code_has_them() {
    let page = include_str!("../../../docs/backends/rabbitmq.md");
    let table = options::markdown(longshore_rabbitmq::OPTIONS);
    assert!(page.contains(&table), "the page lacks this table:\n{table}");
}

//! The kit for longshore's backends: what each of them needs and none should write again.

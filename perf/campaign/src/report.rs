//! Results as text for people: tables for a terminal or a document, and one HTML file with plots.

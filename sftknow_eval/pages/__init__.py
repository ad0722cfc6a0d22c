"""HTML pages that ask nobody for anything: templates, a theme, tables, charts, scripts."""

"""What a run leaves for people: metrics files, results.json, report.md, and one HTML page (html/)."""

"""Everything about one hypervisor host: connection, events, facts, statistics, plans, jobs and their journal."""

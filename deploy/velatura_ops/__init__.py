"""Operations as code: the dashboards, the stack without containers, pictures of the panels."""

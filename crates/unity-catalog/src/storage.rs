//! Stores by their URL, opened with what code and environment say.

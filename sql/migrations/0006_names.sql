-- The names of what workflows and actions do. Apart from 0007, because what is added to a type cannot be used before the
-- transaction that added it has ended.
ALTER TYPE stream_type ADD VALUE 'Workflow';
ALTER TYPE stream_type ADD VALUE 'Definition';
ALTER TYPE stream_type ADD VALUE 'Binding';
ALTER TYPE stream_type ADD VALUE 'Model';
ALTER TYPE event_type ADD VALUE 'registered';
ALTER TYPE event_type ADD VALUE 'removed';
ALTER TYPE event_type ADD VALUE 'set_aside';
ALTER TYPE event_type ADD VALUE 'recorded';
ALTER TYPE event_type ADD VALUE 'run_started';
ALTER TYPE event_type ADD VALUE 'step_started';
ALTER TYPE event_type ADD VALUE 'step_waiting';
ALTER TYPE event_type ADD VALUE 'step_completed';
ALTER TYPE event_type ADD VALUE 'step_failed';
ALTER TYPE event_type ADD VALUE 'step_skipped';
ALTER TYPE event_type ADD VALUE 'run_completed';
ALTER TYPE event_type ADD VALUE 'run_failed';

import { RotateCw } from 'lucide-react';
import { useState } from 'react';
import type { Environment } from '@/api/types';
import { Button } from '@/ui/button';
import { Checklist, type StepState } from '@/ui/checklist';
import { startSteps, withMessage, type Logs, type Starting } from './steps';

/** One line is what the step itself says; a log begins with two. */
function logShown(state: StepState, lines: readonly string[] = []): readonly string[] {
  return state === 'waiting' || (state !== 'failed' && lines.length < 2) ? [] : lines;
}

/** An environment's start as a checklist: what is done, what is under way and how far, what failed and why. */
export function StartProgress({
  environment,
  withRepository,
  onRetry,
  retrying = false,
}: {
  /** Undefined until the server has taken it. */
  environment: (Starting & Partial<Pick<Environment, 'id'>>) | undefined;
  withRepository: boolean;
  onRetry?: (() => void) | undefined;
  retrying?: boolean;
}) {
  const [logs, setLogs] = useState<Logs>({});
  const next = withMessage(logs, environment?.progress);
  if (next !== logs) setLogs(next);
  const steps = startSteps(environment, withRepository).map((step) => ({
    ...step,
    log: logShown(step.state, next[step.id]),
    action:
      step.state === 'failed' && onRetry ? (
        <Button variant="primary" icon={RotateCw} busy={retrying} onClick={onRetry}>
          Retry
        </Button>
      ) : undefined,
  }));
  return (
    <div aria-live="polite">
      <Checklist steps={steps} label="How far the start is" />
    </div>
  );
}

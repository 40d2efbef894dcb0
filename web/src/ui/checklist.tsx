import { Check, Circle, CircleSlash, LoaderCircle, X } from 'lucide-react';
import type { ReactNode } from 'react';
import { cn } from './cn';
import { Collapsible } from './collapsible';
import { Progress } from './progress';

export type StepState = 'waiting' | 'working' | 'done' | 'failed' | 'skipped';

export type Step = {
  id: string;
  title: string;
  state: StepState;
  /** What is happening, or why it failed. */
  note?: string | undefined;
  /** 0 to 100; without it a working step shows no bar. */
  percent?: number | null | undefined;
  log?: readonly string[] | undefined;
  /** Buttons of a failed step. */
  action?: ReactNode;
};

const WORDS: Record<StepState, string> = {
  waiting: 'Waiting',
  working: 'Working',
  done: 'Done',
  failed: 'Failed',
  skipped: 'Skipped',
};

function Mark({ state }: { state: StepState }) {
  const marks = {
    waiting: <Circle aria-hidden className="size-4 text-fg-3" />,
    working: <LoaderCircle aria-hidden className="size-4 animate-spin text-accent-fg" />,
    done: <Check aria-hidden strokeWidth={3} className="size-3 text-ok" />,
    failed: <X aria-hidden strokeWidth={3} className="size-3 text-bad" />,
    skipped: <CircleSlash aria-hidden className="size-4 text-fg-3" />,
  };
  const round = { done: 'bg-ok-soft', failed: 'bg-bad-soft' }[state as 'done' | 'failed'];
  return (
    <span className={cn('flex size-5 items-center justify-center rounded-full', round)}>{marks[state]}</span>
  );
}

/** Steps that are done one after the other, each with its state, its reason and its log. */
export function Checklist({ steps, label }: { steps: readonly Step[]; label: string }) {
  return (
    <ol aria-label={label} className="flex flex-col">
      {steps.map((step, index) => (
        <li key={step.id} aria-current={step.state === 'working' ? 'step' : undefined} className="flex gap-3">
          <span className="flex flex-col items-center">
            <Mark state={step.state} />
            {index < steps.length - 1 && <span aria-hidden className="my-1 w-px flex-1 bg-line" />}
          </span>
          <div className="min-w-0 flex-1 pb-4">
            <p className={cn('text-base leading-5', step.state === 'waiting' ? 'text-fg-3' : 'font-medium')}>
              {step.title}
              <span className="sr-only">: {WORDS[step.state]}</span>
            </p>
            {step.note !== undefined && (
              <p
                className={cn(
                  'mt-0.5 text-sm break-words',
                  step.state === 'failed' ? 'text-bad' : 'text-fg-2',
                )}
              >
                {step.note}
              </p>
            )}
            {step.state === 'working' && step.percent !== undefined && (
              <div className="mt-2 flex items-center gap-2">
                <Progress value={step.percent} label={step.title} />
                {step.percent !== null && (
                  <span className="w-9 text-right text-xs text-fg-3 tabular-nums">{step.percent}%</span>
                )}
              </div>
            )}
            {step.log !== undefined && step.log.length > 0 && (
              <Collapsible title="Log" defaultOpen={step.state === 'failed'} className="mt-1">
                <pre className="max-h-44 overflow-auto rounded-md border border-line bg-sunken p-2.5 font-mono text-xs whitespace-pre-wrap text-fg-2">
                  {step.log.join('\n')}
                </pre>
              </Collapsible>
            )}
            {step.action !== undefined && <div className="mt-2 flex flex-wrap gap-2">{step.action}</div>}
          </div>
        </li>
      ))}
    </ol>
  );
}

import { ArrowUp } from 'lucide-react';
import { useEffect, useEffectEvent, useRef } from 'react';
import { useNavigate } from 'react-router';
import type { Session } from '@/api/types';
import { useStored } from '@/app/stored';
import { Button } from '@/ui/button';
import { Checklist, type Step } from '@/ui/checklist';
import { Dialog } from '@/ui/dialog';
import { ErrorNote } from '@/ui/error-state';
import { toast } from '@/ui/toast';
import { startFailure, startSteps } from '../environments/steps';
import { FORM_ID, TaskFields } from './fields';
import { StartFailed, useTaskRun, type TaskRun } from './run';

const isText = (value: unknown): value is string => typeof value === 'string';

/**
 * One box that starts an agent: what it should do, where, and which one. Closing it keeps what was
 * written; what was begun goes on, and tells when it is there.
 */
export default function NewTask({
  open,
  onShow,
  onClose,
  onBusy,
}: {
  open: boolean;
  onShow: () => void;
  onClose: () => void;
  /** Told while something is being made. */
  onBusy: (busy: boolean) => void;
}) {
  const navigate = useNavigate();
  const [draft, setDraft] = useStored('task.draft', '', isText);
  const [lastAgent, keepAgent] = useStored('task.agent', '', isText);
  const [lastEnvironment, keepEnvironment] = useStored('task.environment', '', isText);
  const shown = useRef(open);
  useEffect(() => {
    shown.current = open;
  }, [open]);
  const done = (session: Session) => {
    setDraft('');
    keepEnvironment(session.environmentId);
    if (session.agentId) keepAgent(session.agentId);
    onBusy(false);
    if (shown.current) void navigate(`/s/${session.id}`);
    else {
      toast.ok(`${session.name} has begun`, {
        action: { label: 'Open', onClick: () => void navigate(`/s/${session.id}`) },
      });
    }
  };
  const run = useTaskRun(done);
  const busy = run.stage !== 'form';
  // What failed out of sight comes back into view, once.
  const failed = run.error !== undefined;
  const onFailed = useEffectEvent(() => {
    if (!shown.current)
      toast.failed('The task was not begun', run.error, { action: { label: 'Look', onClick: onShow } });
  });
  useEffect(() => {
    if (failed) onFailed();
  }, [failed]);
  if (!open) return null;
  return (
    <Dialog
      open
      sticky={draft !== ''}
      onOpenChange={(next) => {
        if (!next) onClose();
      }}
      title={busy ? 'Starting the agent' : 'New task'}
      footer={
        busy ? (
          <>
            <p role="status" className="mr-auto text-sm text-fg-2 max-md:w-full">
              {failed ? 'It did not go on.' : 'You may close this; the work goes on.'}
            </p>
            {failed && (
              <Button
                onClick={() => {
                  onBusy(false);
                  run.back();
                }}
              >
                Back
              </Button>
            )}
            <Button onClick={onClose}>Close</Button>
          </>
        ) : (
          <>
            <p className="mr-auto text-xs text-fg-3 max-md:hidden">
              Enter starts it, Shift+Enter makes a new line.
            </p>
            <Button onClick={onClose}>Cancel</Button>
            <Button type="submit" form={FORM_ID} variant="primary" icon={ArrowUp}>
              Start
            </Button>
          </>
        )
      }
    >
      {busy ? (
        <Progress run={run} />
      ) : (
        <TaskFields
          draft={draft}
          onDraft={setDraft}
          lastAgent={lastAgent}
          lastEnvironment={lastEnvironment}
          error={run.error}
          onStart={(form) => {
            onBusy(true);
            run.start(form);
          }}
        />
      )}
    </Dialog>
  );
}

function Progress({ run }: { run: TaskRun }) {
  const { stage, environment, error, retry, retrying } = run;
  const withRepository = environment ? Boolean(environment.repositoryUrl) : true;
  const retryButton = retry && (
    <Button variant="primary" busy={retrying} onClick={retry}>
      Retry
    </Button>
  );
  const before = (run.fromScratch ? startSteps(environment, withRepository) : []).map((step): Step => {
    if (stage === 'session') return { ...step, state: 'done', note: undefined };
    return step.state === 'failed' ? { ...step, action: retryButton } : step;
  });
  const failed = error !== undefined && stage === 'session';
  const last: Step = {
    id: 'session',
    title: withRepository ? 'Make its worktree and start the agent' : 'Start the agent',
    state: failed ? 'failed' : stage === 'session' ? 'working' : 'waiting',
    percent: null,
    action: failed ? retryButton : undefined,
  };
  const told = environment !== undefined && startFailure(environment) !== undefined;
  return (
    <div aria-live="polite">
      <Checklist steps={[...before, last]} label="How far the start is" />
      {error !== undefined && !(told && error instanceof StartFailed) && (
        <div className="flex flex-col items-start gap-2">
          <ErrorNote error={error} className="w-full" />
          {stage === 'environment' && !told && retryButton}
        </div>
      )}
    </div>
  );
}

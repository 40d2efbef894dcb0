import { Undo2 } from 'lucide-react';
import { useState } from 'react';
import {
  useRollback,
  useRollbackCommits,
  type Deployment,
  type RollbackCommit,
  type Target,
} from '@/api/deployments';
import { exactTime } from '@/app/time';
import { Button } from '@/ui/button';
import { Dialog } from '@/ui/dialog';
import { Notice } from '@/ui/notice';
import { SkeletonRows } from '@/ui/skeleton';
import { RadioGroup } from '@/ui/toggles';
import { short } from '../environment/words';
import { ConnectionError } from './connection';
import { deploymentStatus, rollbackChoices, sameCommit, type RollbackChoice } from './words';

/** Asks for a commit, and brings an application back to it. */
export function RollbackDialog({
  target,
  appId,
  appName,
  history,
  wanted,
  onClose,
  onStarted,
}: {
  target: Target;
  appId: string;
  appName: string;
  history: readonly Deployment[];
  /** Where somebody has chosen one in the history. */
  wanted?: string | undefined;
  onClose: () => void;
  onStarted: (row: Deployment) => void;
}) {
  const commits = useRollbackCommits(target, appId);
  const [chosen, setChosen] = useState(wanted ?? '');
  const rollback = useRollback(target);
  const choices = rollbackChoices(commits.data, history, appId);
  const earlier = choices.filter(({ current }) => !current);
  const picked = earlier.find(({ commit }) => sameCommit(commit, chosen));
  return (
    <Dialog
      open
      onOpenChange={(open) => {
        if (!open) onClose();
      }}
      title={`Roll ${appName} back`}
      description="Coolify starts the image of an earlier commit again. The repository stays as it is: the next deployment builds the branch anew."
      footer={
        <>
          <Button onClick={onClose}>Cancel</Button>
          <Button
            variant="primary"
            icon={Undo2}
            disabled={picked === undefined}
            busy={rollback.isPending}
            onClick={() => {
              if (picked)
                rollback.mutate(
                  { appId, commit: picked.commit },
                  {
                    onSuccess: (row) => {
                      onStarted(row);
                      onClose();
                    },
                  },
                );
            }}
          >
            {picked ? `Roll back to ${short(picked.commit)}` : 'Roll back'}
          </Button>
        </>
      }
    >
      <div className="flex flex-col gap-3">
        {rollback.isError && <ConnectionError error={rollback.error} />}
        {commits.isPending && <SkeletonRows rows={3} label="Asking Coolify for its images" />}
        {commits.isError && <ConnectionError error={commits.error} />}
        {!commits.isPending && <Running choices={choices} known={commits.data} />}
        {!commits.isPending && earlier.length === 0 && (
          <Notice>There is no earlier commit that Coolify has an image of.</Notice>
        )}
        {!commits.isPending && earlier.length > 0 && (
          <RadioGroup
            label="The commit to go back to"
            value={picked?.commit ?? ''}
            onChange={setChosen}
            options={earlier.map((one) => ({
              value: one.commit,
              label: <span className="font-mono">{short(one.commit)}</span>,
              hint: hintOf(one),
            }))}
            className="gap-3"
          />
        )}
      </div>
    </Dialog>
  );
}

function Running({
  choices,
  known,
}: {
  choices: readonly RollbackChoice[];
  known: readonly RollbackCommit[] | undefined;
}) {
  const now = choices.find(({ current }) => current);
  if (now === undefined) return null;
  return (
    <p className="text-sm text-fg-2">
      {known ? 'Runs now' : 'Was deployed last'}:{' '}
      <span className="font-mono text-fg">{short(now.commit)}</span>
    </p>
  );
}

function hintOf({ at, deployment, kept }: RollbackChoice): string {
  const parts = [
    ...(at === null ? [] : [deployment ? `deployed ${exactTime(at)}` : `built ${exactTime(at)}`]),
    ...(deployment ? [deploymentStatus(deployment).word.toLowerCase()] : []),
    ...(kept === false ? ['Coolify lists no image of it'] : []),
  ];
  return parts.join(' · ');
}

import type { ReactNode } from 'react';
import type { Environment, Session } from '@/api/types';
import { StatusDot } from '@/ui/status';
import { TabPanel, Tabs, type Tab } from '@/ui/tabs';
import { Changes } from './changes';
import { Commands } from './commands';
import { Deploy } from './deploy';
import { Info } from './info';

export const RAIL_TABS = ['changes', 'deploy', 'info', 'commands'] as const;
export type RailTab = (typeof RAIL_TABS)[number];

export const isRailTab = (value: unknown): value is RailTab => RAIL_TABS.some((one) => one === value);

/** Which parts a session has; `deploying`: its work is on its way. Pure. */
export function railTabs(session: Session, changed: number | undefined, deploying = false): Tab<RailTab>[] {
  if (session.gitBranch === null) return [{ value: 'info', label: 'Info' }];
  return [
    { value: 'changes', label: 'Changes', count: changed === 0 ? undefined : changed },
    {
      value: 'deploy',
      label: deploying ? (
        <>
          Deploy <StatusDot kind="working" label="under way" />
        </>
      ) : (
        'Deploy'
      ),
    },
    { value: 'info', label: 'Info' },
    { value: 'commands', label: 'Commands' },
  ];
}

type PartProps = {
  session: Session;
  environment: Environment | undefined;
  /** Whether the sandbox can be asked. */
  running: boolean;
  file: string | undefined;
  onOpen: (file: string | undefined) => void;
  /** Pushes the branch. */
  onPush: () => void;
  pushing: boolean;
};

/** What stands beside the terminals. */
export function Rail({
  tab,
  tabs,
  onTab,
  news,
  ...part
}: PartProps & {
  tab: RailTab;
  tabs: readonly Tab<RailTab>[];
  onTab: (tab: RailTab) => void;
  /** What came of a push or a pull. */
  news: ReactNode;
}) {
  return (
    <aside aria-label={`About ${part.session.name}`} className="flex h-full min-w-0 flex-col bg-surface">
      <div className="shrink-0 p-2 empty:hidden">{news}</div>
      <Tabs
        value={tab}
        onChange={onTab}
        tabs={tabs}
        label="About the session"
        className="flex min-h-0 flex-1 flex-col"
      >
        {tabs.map(({ value }) => (
          <TabPanel key={value} value={value} className="flex min-h-0 flex-1 flex-col pt-0 focus-inset">
            <RailPart tab={value} {...part} />
          </TabPanel>
        ))}
      </Tabs>
    </aside>
  );
}

/** One part alone. */
export function RailPart({
  tab,
  session,
  environment,
  running,
  file,
  onOpen,
  onPush,
  pushing,
}: PartProps & { tab: RailTab }) {
  if (tab === 'info') {
    return <Info session={session} environment={environment} git={running && session.gitBranch !== null} />;
  }
  if (tab === 'deploy') {
    return (
      <Deploy
        key={session.id}
        session={session}
        running={running}
        pushing={pushing}
        onReview={() => onOpen(undefined)}
        onPush={onPush}
      />
    );
  }
  if (!running) {
    return (
      <p className="px-6 py-8 text-center text-sm text-fg-2">
        The sandbox is not running. It starts when a terminal is opened; then this can be read.
      </p>
    );
  }
  return tab === 'changes' ? (
    <Changes key={session.id} sessionId={session.id} file={file} onOpen={onOpen} />
  ) : (
    <Commands key={session.id} sessionId={session.id} />
  );
}
